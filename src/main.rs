//! Flags to configuration to shards to exit code; no decisions.
//!
//! The order: everything is read and valid before anything is opened; ports are opened first, by the only thread there is
//! then, which gives up its privileges before there is another; then the log, and the shards at last. The service manager
//! hears of it when they run.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use tokio::sync::oneshot;

use weir::{
    cli::{
        args::{self, Page, Wanted},
        check,
        config::Config,
        doctor::{self, Level},
        explain,
        flags::{Flags, Purpose},
        launch::Circumstances,
        manual,
        reader::Wrong,
    },
    control::{self, Control, Crew},
    demo,
    maillog::Writer,
    metrics::{self, Counters},
    net::{Limit, ListenerGroup, own_addresses},
    rt,
    sandbox::{self, Entered, Trouble},
    shard::{self, clock::Clock},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// sysexits.h: the command line is wrong.
const USAGE: u8 = 64;
/// sysexits.h: an address is in use, a file cannot be opened, the kernel lacks something.
const UNAVAILABLE: u8 = 69;

/// All processes of a user share its limit of locked memory. Below this, and where it cannot be raised, CAP_IPC_LOCK is kept.
const LOCKED_AMPLE: u64 = 64 << 20;

fn main() -> ExitCode {
    let (wanted, wrong) = args::parse(
        std::env::args_os()
            .skip(1)
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    match wanted {
        None => refuse(&wrong),
        Some(Wanted::Show(text)) => print(&text),
        Some(Wanted::Page(Page::Flags)) => print(&manual::flags()),
        Some(Wanted::Page(Page::Metrics)) => print(&metrics::expose::markdown()),
        Some(Wanted::Check(flags)) => match read(&flags, Purpose::Relay, wrong) {
            Ok(config) => print(&plan(&config)),
            Err(wrong) => refuse(&wrong),
        },
        Some(Wanted::Explain(address, flags)) if wrong.is_empty() => {
            match explain::explain(&address, flags.running.admin.as_deref()) {
                Ok(text) => print(&text),
                Err(why) => {
                    eprintln!("weir: {why}");
                    ExitCode::from(UNAVAILABLE)
                }
            }
        }
        Some(Wanted::Explain(..)) => refuse(&wrong),
        Some(Wanted::Doctor(flags)) => match read(&flags, Purpose::Doctor, wrong) {
            Ok(config) => examine(&config),
            Err(wrong) => refuse(&wrong),
        },
        Some(Wanted::Run(flags)) => match read(&flags, Purpose::Relay, wrong) {
            Ok(config) => run(*flags, config).unwrap_or_else(|error| {
                eprintln!("weir: {error}");
                ExitCode::from(UNAVAILABLE)
            }),
            Err(wrong) => refuse(&wrong),
        },
    }
}

/// What is opened with the privileges the process was started with.
struct Ports {
    groups: Vec<ListenerGroup>,
    admin: Option<TcpListener>,
}

impl Ports {
    fn open(config: &Config, here: &Circumstances) -> io::Result<Ports> {
        let shards = config.shards(here.cores.len());
        let listeners = config.listeners();
        let groups = listeners
            .iter()
            .map(|listener| ListenerGroup::open(listener, shards));
        Ok(Ports {
            groups: groups.collect::<io::Result<_>>()?,
            admin: config.running.admin.map(control::bind_admin).transpose()?,
        })
    }

    /// Where, in the order of the configuration: a port 0 has become a real one.
    fn listening(&self) -> Vec<SocketAddr> {
        self.groups.iter().map(|group| group.address).collect()
    }
}

fn run(flags: Flags, config: Config) -> io::Result<ExitCode> {
    let small_pages = rt::keep_pages_small();
    let here = Circumstances {
        cores: rt::allowed_cores(),
        open_files: Limit::OpenFiles.raise()?.soft,
        addresses: addresses(config.identifying.is_dedicated())?,
        clock: Clock::start(),
    };
    let locked = config.locked_memory(config.shards(here.cores.len()), here.open_files);
    let ample = LOCKED_AMPLE.max(locked * 2);
    let memlock = Limit::LockedMemory.reach(ample)?;
    if memlock.hard < doctor::MEMLOCK_MIN {
        return Err(io::Error::other(
            doctor::memlock_short(memlock.hard, locked).to_string(),
        ));
    }
    let ports = Ports::open(&config, &here)?;
    let entered = confine(&config, memlock.hard < ample).map_err(io::Error::other)?;
    let troubles = doctor::ring_troubles();
    if let Some(fatal) = troubles
        .iter()
        .find(|trouble| trouble.level == Level::Failure)
    {
        return Err(io::Error::other(format!(
            "{fatal} (weir doctor tells more)"
        )));
    }
    let writer =
        Writer::start(config.logging.log.clone(), here.clock.epoch()).map_err(|error| {
            let remedy =
                "its folder has to be there, and writable for the user that weir runs as (--user)";
            io::Error::new(error.kind(), format!("--log-file {error}; {remedy}"))
        })?;
    writer
        .install(config.logging.level)
        .map_err(io::Error::other)?;
    if let Err(error) = small_pages {
        log::warn!("huge pages cannot be switched off, memory comes in steps of 2 MiB: {error}");
    }
    log::info!("{entered}");
    let lost = doctor::kept(&entered);
    lost.iter()
        .chain(&troubles)
        .for_each(|lost| log::warn!("{lost}"));
    let outcome = relay(flags, config, &here, &writer, ports);
    writer.finish();
    outcome.map_err(|error| match error.kind() {
        io::ErrorKind::OutOfMemory => {
            let limit = doctor::memlock_short(memlock.hard, locked);
            io::Error::other(format!("a shard's rings: {error}; {limit}"))
        }
        _ => error,
    })
}

/// This host's own. Only clients with connections of their own are kept from weir itself by them.
fn addresses(are_needed: bool) -> io::Result<Vec<IpAddr>> {
    if !are_needed {
        return Ok(Vec::new());
    }
    own_addresses().map_err(|error| {
        io::Error::other(format!(
            "the addresses of this host cannot be looked up: {error}; allow netlink sockets (AF_NETLINK in RestrictAddressFamilies= of the systemd unit, or the container's seccomp profile)"
        ))
    })
}

/// Gives up what is not needed any more. From here on there may be threads.
fn confine(config: &Config, locks_much: bool) -> Result<Entered, Trouble> {
    let entered = sandbox::enter(&config.sandbox(locks_much))?;
    config.out_of_reach().map_or(Ok(entered), Err)
}

fn relay(
    flags: Flags,
    config: Config,
    here: &Circumstances,
    writer: &Writer,
    ports: Ports,
) -> io::Result<ExitCode> {
    let listening = ports.listening();
    let show = |arrival: &demo::Arrival| {
        print(&demo::describe(arrival));
    };
    let sink = config.running.demo.then(|| demo::start(show)).transpose()?;
    let control = config.control_config(flags, listening.clone(), ports.admin, sink, here.clock);
    let control = Control::open(control)?;

    let shards = config.shards_config(control.upstreams(), here);
    let counters: Vec<Arc<Counters>> = (0..shards.shards).map(|_| Arc::default()).collect();
    let logs = counters
        .iter()
        .enumerate()
        .map(|(shard, counters)| writer.logs().buffer(shard, Arc::clone(counters)));
    let shards = shard::launch(
        shards,
        config.lists(),
        ports.groups,
        &counters,
        logs.collect(),
    )?;
    announce(&config, here, &listening, &control);

    let mailer = shards.mailer();
    let (told, join) = shards.split();
    let crew = Crew {
        mail: mailer.clone().to_all(),
        to_others: mailer.to_others(),
        told,
        counters,
        ended: watch(join)?,
    };
    // The lists in it are to go when they are replaced.
    drop(config);
    control.run(crew, writer.logs())
}

fn announce(config: &Config, here: &Circumstances, listening: &[SocketAddr], control: &Control) {
    let cores = here.cores.len();
    log::info!(
        "weir {} listens on {listening:?}, {} shards, {}",
        env!("CARGO_PKG_VERSION"),
        config.shards(cores),
        config.mode()
    );
    for warning in check::warnings(config, config.shards(cores), cores) {
        log::warn!("{warning}");
    }
    for name in ignored_variables() {
        log::warn!("{name} is set in the environment and is no flag of weir's: ignored");
    }
    if let (true, Some(first)) = (config.running.demo, listening.first()) {
        print(&demo::welcome(*first, control.admin_address()));
    }
}

/// A thread that waits for the shards' end and tells.
fn watch(
    join: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<oneshot::Receiver<()>> {
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("weir-watch".into())
        .spawn(move || {
            if let Err(error) = join() {
                log::error!("a shard failed: {error}");
            }
            let _ = tell.send(()); // control has left already, after a second signal
        })?;
    Ok(ended)
}

/// The plan, with what this kernel takes away from it.
fn plan(config: &Config) -> String {
    let mut plan = check::plan(config, rt::allowed_cores().len());
    for warning in config.tls.material.warnings(seconds_since_1970()) {
        plan.push_str(&format!("warning: {warning}\n"));
    }
    for lost in doctor::ring_troubles() {
        plan.push_str(&format!("warning: {lost}\n"));
    }
    for name in ignored_variables() {
        plan.push_str(&format!(
            "warning: {name} is set in the environment and is no flag of weir's: ignored\n"
        ));
    }
    plan
}

fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs() as i64
}

fn ignored_variables() -> Vec<String> {
    args::unknown_variables(
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()),
    )
}

fn examine(config: &Config) -> ExitCode {
    let cores = rt::allowed_cores().len();
    let mut points = doctor::examine(config, cores, seconds_since_1970());
    points.extend(doctor::files_of_the_user(config));
    let (report, fit) = doctor::report(&points);
    let printed = print(&report);
    if fit {
        printed
    } else {
        ExitCode::from(UNAVAILABLE)
    }
}

fn read(flags: &Flags, purpose: Purpose, wrong: Vec<Wrong>) -> Result<Config, Vec<Wrong>> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Config::read(flags, purpose, host.trim(), wrong)
}

fn refuse(wrong: &[Wrong]) -> ExitCode {
    for wrong in wrong {
        eprintln!("weir: {wrong}");
    }
    eprintln!("weir: nothing was opened; weir --help explains the flags");
    ExitCode::from(USAGE)
}

/// Prints and is content if the reader has seen enough (`weir docs flags | head`).
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
