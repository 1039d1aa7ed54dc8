//! What differs between two runs that are to be compared, and whether they may be.

use serde_json::Value;

use crate::outcome::{Machine, Outcome};
use crate::plan::Plan;

use super::group;

/// One thing that is not alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `plan.streams.0.open_max`
    pub what: String,
    pub first: String,
    pub second: String,
}

/// Why figures of the two runs must not be held against each other. Empty: they may be.
pub fn objections(first: &Outcome, second: &Outcome) -> Vec<String> {
    let mut objections = Vec::new();
    if !group::same_work(&first.plan, &second.plan) {
        objections.push("the plans differ".to_owned());
    }
    for (run, which) in [(first, "first"), (second, "second")] {
        if run.machine.debug_build {
            objections.push(format!("the {which} is a debug build"));
        }
        if run.integrity.is_none() {
            objections.push(format!("nobody counted what arrived in the {which}"));
        }
    }
    let (one, other) = (&first.machine, &second.machine);
    if (&one.cpu, one.cores, one.memory_octets) != (&other.cpu, other.cores, other.memory_octets) {
        objections.push("they ran on different machines".to_owned());
    } else if one.kernel != other.kernel {
        objections.push("they ran on different kernels".to_owned());
    }
    objections
}

/// Everything in plan and machine that is not alike, but what is another each time.
pub fn list(first: &Outcome, second: &Outcome) -> Vec<Difference> {
    let mut differences = Vec::new();
    let plans = [
        value(&without_run(&first.plan)),
        value(&without_run(&second.plan)),
    ];
    walk("plan", &plans[0], &plans[1], &mut differences);
    let machines = [
        value(&without_load(&first.machine)),
        value(&without_load(&second.machine)),
    ];
    walk("machine", &machines[0], &machines[1], &mut differences);
    differences
}

fn without_run(plan: &Plan) -> Plan {
    Plan {
        run: 1,
        ..plan.clone()
    }
}

fn without_load(machine: &Machine) -> Machine {
    Machine {
        load_before: 0.0,
        warnings: Vec::new(),
        ..machine.clone()
    }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("plans and machines are plain data")
}

fn walk(what: &str, first: &Value, second: &Value, into: &mut Vec<Difference>) {
    match (first, second) {
        (Value::Object(one), Value::Object(other)) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(key).cloned().unwrap_or(Value::Null)
                };
                walk(&format!("{what}.{key}"), &of(one), &of(other), into);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for at in 0..one.len().max(other.len()) {
                let of = |array: &[Value]| array.get(at).cloned().unwrap_or(Value::Null);
                walk(&format!("{what}.{at}"), &of(one), &of(other), into);
            }
        }
        (one, other) if one == other => {}
        (one, other) => into.push(Difference {
            what: what.to_owned(),
            first: shown(one),
            second: shown(other),
        }),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named_by_their_path() {
        let one = json!({"a": 1, "b": [1, {"c": "x"}], "same": true, "gone": 2});
        let other = json!({"a": 1, "b": [1, {"c": "y"}, 3], "same": true, "new": null});
        let mut found = Vec::new();
        walk("plan", &one, &other, &mut found);
        let found: Vec<_> = found
            .iter()
            .map(|d| format!("{} {} {}", d.what, d.first, d.second))
            .collect();
        assert_eq!(found, ["plan.b.1.c x y", "plan.b.2 – 3", "plan.gone 2 –"]);
    }
}
