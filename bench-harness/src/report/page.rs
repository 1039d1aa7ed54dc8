//! The report as one page: first whether mail was lost, then what it cost, then everything behind it.

use super::group::{self, Row, Workload};
use super::html::{self, Html, Table};
use super::latency::{self, Seen};
use super::{tables, timeline, words};
use crate::outcome::{Integrity, Machine, Outcome, Results, Stage, StageTimes};
use crate::units;

/// Runs that are drawn second by second. Of more (rounds of many peers), the first of each name and workload are.
const TIMELINES_MAX: usize = 12;
/// Runs of a workload whose tables by stage stand open.
const STAGES_OPEN_MAX: usize = 2;

/// The whole file.
pub fn of(results: &Results, name: &str) -> String {
    let workloads = group::workloads(&results.runs);
    let mut body = Html::new();
    head(results, &workloads, name, &mut body);
    verdict(&results.runs, &mut body);
    warnings(&results.runs, &mut body);
    tiles(&workloads, &mut body);
    comparisons(results, &mut body);
    let mut timelines = TIMELINES_MAX;
    for (number, workload) in workloads.iter().enumerate() {
        section(
            workload,
            number + 1,
            workloads.len(),
            &mut timelines,
            &mut body,
        );
    }
    how(&results.runs, &mut body);
    html::page(&format!("{name} · weir-bench"), &body)
}

fn head(results: &Results, workloads: &[Workload<'_>], name: &str, body: &mut Html) {
    body.wrap("<h1>", name, "</h1>\n").raw("<p class=\"soft\">");
    let Some(first) = results.runs.first() else {
        body.text(
            match results.comparisons.is_empty() && results.figures.is_empty() {
                true => "No run was made.",
                false => "Comparisons and figures; the runs behind them were not kept.",
            },
        );
        body.raw("</p>\n");
        return;
    };
    let mut names: Vec<&str> = Vec::new();
    for row in workloads.iter().flat_map(|w| &w.rows) {
        if !names.contains(&row.name) {
            names.push(row.name);
        }
    }
    body.text(format!(
        "{} of {} against {}, begun {}, commit {}, {}",
        plural(results.runs.len(), "run"),
        plural(workloads.len(), "workload"),
        names.join(", "),
        first.began,
        commit(&first.machine),
        first.machine.cpu,
    ))
    .raw("</p>\n");
}

fn plural(count: usize, of: &str) -> String {
    match count {
        1 => format!("1 {of}"),
        n => format!("{n} {of}s"),
    }
}

fn commit(machine: &Machine) -> &str {
    match machine.commit.as_str() {
        "" => "unknown",
        commit => commit,
    }
}

/// Before any rate: is the mail whole? What is known to be broken is said before what is not known.
fn verdict(runs: &[Outcome], body: &mut Html) {
    if runs.is_empty() {
        return;
    }
    let counted = || runs.iter().filter(|run| run.integrity.is_some());
    let accepted: u64 = counted().map(Outcome::accepted).sum();
    let uncounted = runs.len() - counted().count();
    let found = group::sum(counted());
    match &found {
        Some(found) if !found.is_clean() => {
            body.raw("<div class=\"verdict broken\"><strong>✗ Mail was not kept whole.</strong> ")
        }
        _ if uncounted > 0 => {
            body.raw("<div class=\"verdict uncounted\"><strong>? Not counted.</strong> ")
        }
        _ if accepted == 0 => body.raw(
            "<div class=\"verdict uncounted\"><strong>? No message was accepted,</strong> so nothing is shown about whether mail is kept whole. ",
        ),
        _ => body.raw(
            "<div class=\"verdict clean\"><strong>✓ Every message is accounted for.</strong> ",
        ),
    };
    if let Some(found) = found {
        body.text(format!(
            "{} messages accepted, {} arrived: {}. ",
            units::grouped(accepted),
            units::grouped(found.arrived),
            found_in_words(&found)
        ));
    }
    if uncounted > 0 {
        body.text(format!(
            "Of {} nobody asked what arrived: for them nothing is said about lost mail, and no rate is claimed.",
            plural(uncounted, "run")
        ));
    }
    body.raw("</div>\n");
}

fn found_in_words(found: &Integrity) -> String {
    let unheard = match found.unanswered_arrived {
        0 => String::new(),
        n => format!(
            "; {} arrived though their reply was never heard",
            units::grouped(n)
        ),
    };
    format!(
        "{} lost, {} duplicated, {} altered, {} invented, {} unknown{unheard}",
        units::grouped(found.lost),
        units::grouped(found.duplicated),
        units::grouped(found.altered),
        units::grouped(found.invented),
        units::grouped(found.unknown)
    )
}

fn warnings(runs: &[Outcome], body: &mut Html) {
    let mut warnings: Vec<&str> = Vec::new();
    if runs.iter().any(|run| run.machine.debug_build) {
        warnings.push("A debug build was measured: its figures say nothing about a release.");
    }
    for warning in runs.iter().flat_map(|run| &run.machine.warnings) {
        if !warnings.contains(&warning.as_str()) {
            warnings.push(warning);
        }
    }
    if warnings.is_empty() {
        return;
    }
    body.raw(
        "<div class=\"warnings\"><strong>! Read the figures with these in mind</strong>\n<ul>\n",
    );
    for warning in warnings {
        body.wrap("<li>", warning, "</li>\n");
    }
    body.raw("</ul></div>\n");
}

/// One tile for each name of a workload: the figure people quote, with what it must be quoted with. Of few only.
fn tiles(workloads: &[Workload<'_>], body: &mut Html) {
    let rows: Vec<&Row<'_>> = workloads.iter().flat_map(|w| &w.rows).collect();
    if rows.is_empty() || rows.len() > 12 {
        return;
    }
    body.raw("<ul class=\"tiles\">\n");
    for (number, workload) in workloads.iter().enumerate() {
        for row in &workload.rows {
            body.raw("<li><div class=\"name\">").text(row.name);
            if workloads.len() > 1 {
                body.text(format!(" · workload {}", number + 1));
            }
            body.raw("</div>\n");
            tile(row, body);
            body.raw("</li>\n");
        }
    }
    body.raw("</ul>\n");
}

fn tile(row: &Row<'_>, body: &mut Html) {
    match row.messages_per_second() {
        Some(rate) => {
            body.wrap("<div class=\"big\">", units::per_second(rate), "</div>\n");
            body.wrap("<div class=\"rest\">", "messages accepted", "");
            match row.integrity() {
                Some(found) if !found.is_clean() => {
                    body.text(format!("; {}", found_in_words(&found)))
                }
                _ if rate > 0.0 => body.text(", all of them whole"),
                _ => body,
            };
            body.raw("</div>\n");
        }
        None => {
            body.raw("<div class=\"big\">no rate</div>\n<div class=\"rest\">not counted at the sink</div>\n");
        }
    }
    for stream in &row.streams {
        if let Some(StageTimes { planned, .. }) = group::session(stream) {
            body.raw("<div class=\"rest\">").text(format!(
                "{}: p50 {}, p99 {}, p99.9 {}",
                stream.name,
                units::duration(planned.at(50.0)),
                units::duration(planned.at(99.0)),
                units::duration(planned.at(99.9))
            ));
            body.raw("</div>\n");
        }
    }
}

fn comparisons(results: &Results, body: &mut Html) {
    if !results.figures.is_empty() {
        body.raw("<h2>Figures and their targets</h2>\n<div class=\"words\">");
        tables::figures(&results.figures).write(body);
        body.raw("</div>\n");
    }
    if results.comparisons.is_empty() {
        return;
    }
    body.raw("<h2>Against peers</h2>\n<p class=\"soft\">CPU is user and system time of the whole proxy, from /proc, divided by the messages accepted. Rounds were interleaved; the bar is the median, the thin line on it reaches from the smallest to the largest round.</p>\n");
    for comparison in &results.comparisons {
        tables::comparison(comparison).write(body);
        let rounds = comparison
            .peers
            .iter()
            .map(|p| p.cpu_us.len())
            .max()
            .unwrap_or(0);
        body.raw("<p class=\"note\">")
            .text(match comparison.against.as_str() {
                "" => format!("{}.", plural(rounds, "round")),
                against => format!(
                    "{}; ratios of medians against {against}.",
                    plural(rounds, "round")
                ),
            });
        body.raw("</p>\n");
    }
}

fn section(
    workload: &Workload<'_>,
    number: usize,
    of: usize,
    timelines: &mut usize,
    body: &mut Html,
) {
    body.raw("<h2>");
    if of > 1 {
        body.text(format!("Workload {number}: "));
    }
    body.text(words::title(workload.plan)).raw("</h2>\n");
    plan(workload, body);
    tables::integrity(workload).write(body);
    write_unless_empty(&tables::glance(workload), body);
    curves(workload, body);
    stages(workload, body);
    write_unless_empty(&tables::kept(workload), body);
    tables::counts(workload, body);
    body.raw("<div class=\"words\">");
    write_unless_empty(&tables::words(workload), body);
    body.raw("</div>\n");
    over_time(workload, timelines, body);
}

fn write_unless_empty(table: &Table, body: &mut Html) {
    if !table.rows.is_empty() {
        table.write(body);
    }
}

fn plan(workload: &Workload<'_>, body: &mut Html) {
    body.wrap("<p>", words::frame(workload.plan), "</p>\n<dl>\n");
    for stream in &workload.plan.streams {
        body.wrap("<dt>", &stream.name, "</dt>")
            .wrap("<dd>", words::stream(stream), "</dd>\n");
    }
    body.raw("</dl>\n");
}

/// One chart for each stream, with all names in it.
fn curves(workload: &Workload<'_>, body: &mut Html) {
    for stream in &workload.plan.streams {
        let seen: Vec<_> = workload
            .rows
            .iter()
            .filter_map(|row| {
                Some(Seen {
                    name: row.name,
                    number: row.number,
                    times: group::session(row.stream(&stream.name)?)?,
                })
            })
            .collect();
        let Some(chart) = latency::chart(format!("Latency by percentile, {}", stream.name), &seen)
        else {
            continue;
        };
        chart.write(
            "From the planned start: what somebody who comes by the plan waits. Service time: from the moment the session really \
             started. What lies between is the wait that a tool with coordinated omission does not see.",
            body,
        );
    }
}

fn stages(workload: &Workload<'_>, body: &mut Html) {
    let is_open = workload.rows.len() <= STAGES_OPEN_MAX;
    for row in &workload.rows {
        for stream in &row.streams {
            let table = tables::stages(row.name, stream);
            if table.rows.is_empty() {
                continue;
            }
            if is_open {
                table.write(body);
                continue;
            }
            body.raw("<details><summary>")
                .text(format!("Stages, {}: {}", row.name, stream.name))
                .raw("</summary>\n");
            table.write(body);
            body.raw("</details>\n");
        }
    }
    if workload
        .rows
        .iter()
        .flat_map(|r| &r.streams)
        .any(|s| s.stages.keys().any(|s| *s != Stage::Session))
    {
        body.raw("<p class=\"note\">From the planned start: until this stage was over. Service time: this stage alone.</p>\n");
    }
}

fn over_time(workload: &Workload<'_>, timelines: &mut usize, body: &mut Html) {
    let is_open = workload.rows.len() <= STAGES_OPEN_MAX;
    for row in &workload.rows {
        let Some(run) = row.rounds.first() else {
            continue;
        };
        let charts = charts_of(run);
        if charts.is_empty() {
            continue;
        }
        if *timelines == 0 {
            body.raw("<p class=\"note\">")
                .text(format!(
                    "{} over time is not drawn, to keep this page small; the JSON has it.",
                    row.name
                ))
                .raw("</p>\n");
            continue;
        }
        *timelines -= 1;
        let round = match row.rounds.len() {
            1 => String::new(),
            n => format!(", first of {n} rounds"),
        };
        if is_open {
            body.wrap("<h3>", format!("Over time, {}{round}", row.name), "</h3>\n")
                .html(&charts);
        } else {
            body.wrap(
                "<details><summary>",
                format!("Over time, {}{round}", row.name),
                "</summary>\n",
            )
            .html(&charts)
            .raw("</details>\n");
        }
    }
}

fn charts_of(run: &Outcome) -> Html {
    let mut charts = Html::new();
    let heard = match run.integrity {
        Some(_) => {
            "Counted by the clients; the vertical lines are the end of the warm-up and of the plan."
        }
        None => "As the clients heard it: nobody counted what arrived.",
    };
    for stream in &run.streams {
        if let Some(chart) = timeline::rate(run, stream) {
            chart.write(heard, &mut charts);
        }
        if let Some(chart) = timeline::latency(run, stream) {
            chart.write("", &mut charts);
        }
    }
    for chart in [
        timeline::open(run),
        timeline::cpu(run),
        timeline::memory(run),
    ]
    .into_iter()
    .flatten()
    {
        chart.write("", &mut charts);
    }
    charts
}

/// How to get these figures again.
fn how(runs: &[Outcome], body: &mut Html) {
    let Some(first) = runs.first() else {
        return;
    };
    body.raw("<h2>How this was measured</h2>\n");
    let mut commands: Vec<&str> = Vec::new();
    for run in runs {
        if !commands.contains(&run.command.as_str()) {
            commands.push(&run.command);
        }
    }
    body.wrap("<pre>", commands.join("\n"), "</pre>\n");
    let mut machines: Vec<&Machine> = Vec::new();
    for run in runs {
        if !machines.iter().any(|m| same_machine(m, &run.machine)) {
            machines.push(&run.machine);
        }
    }
    for machine in machines {
        machine_list(machine, body);
    }
    let lasted: f64 = runs.iter().map(|r| r.lasted.as_secs_f64()).sum();
    body.wrap(
        "<p class=\"soft\">",
        format!(
            "Begun {}; all runs together {}. A histogram keeps three digits: a latency may be 0.1% more than shown.",
            first.began,
            units::micros(lasted * 1e6)
        ),
        "</p>\n",
    );
}

fn same_machine(one: &Machine, other: &Machine) -> bool {
    let bare = |machine: &Machine| Machine {
        load_before: 0.0,
        warnings: Vec::new(),
        ..machine.clone()
    };
    bare(one) == bare(other)
}

fn machine_list(machine: &Machine, body: &mut Html) {
    body.raw("<dl>\n");
    for (what, value) in [
        (
            "CPU",
            format!(
                "{}, {}",
                machine.cpu,
                plural(machine.cores as usize, "core")
            ),
        ),
        ("Memory", units::octets(machine.memory_octets as f64)),
        ("Kernel", machine.kernel.clone()),
        ("Commit", commit(machine).to_owned()),
        (
            "Build",
            if machine.debug_build {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
        ),
        (
            "Open files, at most",
            units::grouped(machine.open_files_max),
        ),
        (
            "Load before the first run",
            units::three_digits(machine.load_before),
        ),
    ] {
        body.wrap("<dt>", what, "</dt>")
            .wrap("<dd>", value, "</dd>\n");
    }
    body.raw("</dl>\n");
}
