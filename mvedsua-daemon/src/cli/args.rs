//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::logging::LogFormat;
use super::{transforms, twin};
use crate::control::Code;
use crate::control::dirs::Dirs;
use crate::control::process::Wanted;
use crate::lifecycle::{Confirmation, Promotion};
use crate::monitor::{Mode, SlowScope};
use crate::package::{self, Accept, MaxSlowdown, StopAt};
use crate::record::interleaving::Interleaving;
use crate::rules::Direction;
use crate::side_by_side::{OnDivergence, Quorum};
use crate::units;
use crate::update::{OnFull, OnParting};

/// Updates a running server in place, without stopping it and without betting the service on the update.
#[derive(Debug, Parser)]
#[command(name = "mvedsuad", version, max_term_width = 100, after_long_help = codes_help(), propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but results that were asked for and errors: no progress, and no word that something is done.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Returns the part of the help that lists the exit codes.
#[must_use]
pub fn codes_help() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for code in Code::ALL {
        text.push_str(&format!("  {:>2}  {}\n", u8::from(code), code.meaning()));
    }
    text
}

/// The heading in the help of the options that name directories and files; they are the same for every verb.
const PLACES: &str = "Places";

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Where the daemon's socket and lock are.
    #[arg(
        long,
        global = true,
        env = "MVEDSUA_RUNTIME_DIR",
        default_value = "/run/mvedsua",
        value_name = "DIR",
        help_heading = PLACES
    )]
    pub runtime_dir: PathBuf,
    /// Where the daemon keeps journal, history and audit log.
    #[arg(
        long,
        global = true,
        env = "MVEDSUA_STATE_DIR",
        default_value = "/var/lib/mvedsua",
        value_name = "DIR",
        help_heading = PLACES
    )]
    pub state_dir: PathBuf,
    /// Who besides root may observe and update their own processes.
    #[arg(
        long,
        global = true,
        env = "MVEDSUA_CONFIG",
        default_value = "/etc/mvedsua/mvedsuad.toml",
        value_name = "FILE",
        help_heading = PLACES
    )]
    pub config: PathBuf,
    /// Where packages are looked up by name: `DIR/<program>/<name>`, a directory or a tar archive.
    #[arg(
        long,
        global = true,
        env = "MVEDSUA_UPDATES_DIR",
        default_value = "/etc/mvedsua/updates",
        value_name = "DIR",
        help_heading = PLACES
    )]
    pub updates_dir: PathBuf,
}

impl Place {
    #[must_use]
    pub fn dirs(&self) -> Dirs {
        Dirs {
            runtime: self.runtime_dir.clone(),
            state: self.state_dir.clone(),
            config: self.config.clone(),
            updates: self.updates_dir.clone(),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Observe a running process; starts the daemon when none runs
    Attach(AttachArgs),
    /// Stop observing a process
    Detach(TargetArgs),
    /// Observe a process in another way, from now on
    Mode(ModeArgs),
    /// Show what was observed: counts, errors and latencies of each call
    Stats(StatsArgs),
    /// Watch what is observed and updated, live in a terminal
    Top(TopArgs),
    /// Fork a process, apply the new version to the fork, and compare the two under the real load
    Update(Box<UpdateArgs>),
    /// Make the new version the leader
    Promote(PromoteArgs),
    /// End the old version after a promotion
    Confirm(TargetArgs),
    /// Undo an update: before the promotion the follower ends, after it the old version leads again
    Rollback(RollbackArgs),
    /// Show which process runs which version, what was compared, and what happens next
    Status(TargetArgs),
    /// List past updates
    History(HistoryArgs),
    /// Show what an update came to: why it was rolled back, what was compared, and how long it took
    Report(ReportArgs),
    /// Tell everything that happens: updates with their stages, failures and verdicts, and what the daemon itself does
    Events(EventsArgs),
    /// Show everything live in a browser on this machine, for whoever has the address that is printed
    Serve(ServeArgs),
    /// Say what the kernel, or a process, lacks for an update, and what to do about it
    Doctor(DoctorArgs),
    /// Print the functions that updates have loaded into a process, in the form of perf's map files
    Symbols(TargetArgs),
    /// Look at an update package
    Package(PackageArgs),
    /// Compare two versions of a program or library, and say whether a process could go from one to the other
    Compare(CompareArgs),
    /// List the processes that run code which is no longer what is on the disk, and what can be done about it
    Outdated(OutdatedArgs),
    /// Try the rules that allow for the versions' differences, without any process
    Rules(RulesArgs),
    /// Run several versions of a program side by side from its start; what is seen of it is the first one's
    Run(RunArgs),
    /// Let a version live through what `run --record` has recorded, without the program that was recorded
    Replay(ReplayArgs),
    /// Run the daemon in the foreground
    Daemon(DaemonArgs),
    /// Write the man pages or the shell completions into a directory
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Waits for its standard input to end; `doctor` traces it to try the kernel
    #[command(hide = true)]
    ProbeTracee,
}

/// Which process.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub struct TargetArgs {
    /// The process; left out where only one comes into question.
    #[arg(value_name = "PID", value_parser = units::parse_pid)]
    pub pid: Option<i32>,
    /// The process that runs this executable (a path or a name).
    #[arg(long, value_name = "EXE")]
    pub exe: Option<String>,
    /// The process that listens on this TCP port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The main process of this systemd unit.
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
}

impl TargetArgs {
    /// Returns what was asked for, if anything was.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let exe = self.exe.clone().map(Wanted::Exe);
        let unit = self.unit.clone().map(Wanted::Unit);
        self.pid.map(Wanted::Pid).or(exe).or(self.port.map(Wanted::Port)).or(unit)
    }
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// `exact` counts and times every call; `sampled` costs nearly nothing and estimates.
    #[arg(long, default_value_t = Mode::Sampled, value_enum)]
    pub mode: Mode,
    /// Calls that take at least this long are shown with their arguments.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10ms", value_name = "DURATION")]
    pub slow: Duration,
    /// Which of the slow calls are shown.
    #[arg(long, default_value_t = SlowScope::Working, value_enum)]
    pub slow_scope: SlowScope,
    /// What to call it in events and metrics [default: the name of its systemd service, or of its program]
    #[arg(long, value_name = "NAME", value_parser = crate::control::names::check)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct ModeArgs {
    /// The new mode.
    #[arg(value_enum)]
    pub mode: Mode,
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print again after each interval, until interrupted.
    #[arg(
        long,
        value_parser = humantime::parse_duration,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_name = "INTERVAL"
    )]
    pub watch: Option<Duration>,
    /// Write the histograms as a standard HdrHistogram interval log.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub export: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// How often to look.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s", value_name = "DURATION")]
    pub interval: Duration,
    /// Print the calls once, as `stats` does, and end; so it is where standard output is no terminal, and with --json.
    #[arg(long)]
    pub once: bool,
}

/// What is left out here is the package's to say; the defaults hold where it says nothing either.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The new version: the path of an executable or library (with a slash), `installed`, what the package manager has put
    /// where the files of the process were, the name of a package in the program's directory under --updates-dir, the
    /// path of one, or `self`, the same version again: a rehearsal of everything but the change.
    #[arg(long, value_name = "FILE|installed|NAME|PATH|self")]
    pub to: String,
    /// Of the files that the process has mapped, the one that changes, by its name, such as `libssl.so.3`.
    #[arg(long, value_name = "NAME")]
    pub library: Option<String>,
    /// Who promotes: you, or the daemon once it has soaked and enough was compared [default: manual]
    #[arg(long, value_enum)]
    pub promote: Option<Promotion>,
    /// Who ends the old version after the promotion: you, or the daemon once the soak time has passed again
    /// [default: manual]
    #[arg(long, value_enum)]
    pub confirm: Option<Confirmation>,
    /// How long the new version must agree before it may be promoted by itself [default: 10s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub soak: Option<Duration>,
    /// How many outputs must have been compared before there is a verdict [default: 10]
    #[arg(long, value_name = "N")]
    pub min_outputs: Option<u64>,
    /// How many calls must have been compared before there is a verdict [default: 100]
    #[arg(long, value_name = "N")]
    pub min_calls: Option<u64>,
    /// How often a failure that is a matter of timing is tried again [default: 8]
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// How long the update may take up to the promotion [default: the soak time and ten minutes]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Memory for the log between the versions [default: 512M]
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE")]
    pub log_memory: Option<u64>,
    /// Disk for the log when its memory is used up; 0 for none [default: 4G]
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE")]
    pub log_disk: Option<u64>,
    /// What happens when the log is full: the update is rolled back, or the service waits [default: rollback]
    #[arg(long, value_enum)]
    pub on_full: Option<OnFull>,
    /// What happens when the versions part after the promotion: the old one leads again, or the new one keeps the service
    /// [default: rollback]
    #[arg(long, value_enum)]
    pub on_parting: Option<OnParting>,
    /// How the program's threads run beside each other while two versions run: one at a time between their calls, or freely,
    /// where the versions may part by taking locks in another order [default: one-by-one, and free at each third attempt]
    #[arg(long, value_enum)]
    pub threads: Option<Interleaving>,
    /// Where both versions are stopped: where something cannot be recorded or answered otherwise, or at each of their calls, which
    /// makes the service several times slower [default: where-needed]
    #[arg(long, value_enum)]
    pub stops: Option<StopAt>,
    /// How much memory of its own the new version may take [default: no limit]
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE")]
    pub memory_limit: Option<u64>,
    /// How much the new version may compute, in per cent of what the old one does for the same requests
    /// [default: no limit]
    #[arg(long, value_parser = crate::units::parse_percent, value_name = "PERCENT")]
    pub latency_budget: Option<u32>,
    /// How many times less the service may get done while two versions run, held up by that, than it did before; `off` for no
    /// limit [default: 25]
    #[arg(long, value_name = "FACTOR")]
    pub max_slowdown: Option<MaxSlowdown>,
    /// How sure it must be that the process can go on with the functions of another file: its types are known to agree, or
    /// the two files alone speak for it [default: proved]
    #[arg(long, value_enum)]
    pub accept: Option<Accept>,
    /// Hold each output of the leader back until the new version has produced the same
    #[arg(long)]
    pub lockstep: bool,
    /// A file of rules for the differences that are meant; they come before the package's own
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Keep what the old version does in a file, for `rules test`; it holds payloads, and only root may ask for it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Show progress until there is a verdict, and exit with it
    #[arg(long)]
    pub wait: bool,
}

/// What to compare.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The old version: an ELF file, a Debian package (a file), or `package=version`, which is fetched with apt-get.
    #[arg(value_name = "OLD")]
    pub old: OsString,
    /// The new version, given in the same ways.
    #[arg(value_name = "NEW")]
    pub new: OsString,
    /// Which file of the packages to compare, where several could be meant.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Show both versions of each changed function side by side.
    #[arg(long, conflicts_with = "json")]
    pub code: bool,
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// Debug files of both versions.
#[derive(Debug, Args)]
pub struct DebugArgs {
    /// What was stripped of the old version: a debug file of this very build, a Debian package that holds it, or a directory in
    /// which it lies under its build-id. With those of both versions it is proved what the stripped files only suggest.
    #[arg(long, value_name = "FILE")]
    pub debug_old: Option<PathBuf>,
    /// The same of the new version.
    #[arg(long, value_name = "FILE")]
    pub debug_new: Option<PathBuf>,
}

/// Where to look for outdated code; without a process, at all of them.
#[derive(Debug, Args)]
pub struct OutdatedArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Do not compare the old files with the new ones: what can be done about them is then not known.
    #[arg(long)]
    pub no_compare: bool,
    /// Say it in one line and exit with 0, as after an upgrade of packages.
    #[arg(long, conflicts_with_all = ["json", "no_compare"])]
    pub brief: bool,
    /// Update those that can be, one after the other, as far as the configuration accepts it.
    #[arg(long, conflicts_with_all = ["no_compare", "brief"])]
    pub update: bool,
}

#[derive(Debug, Args)]
pub struct PackageArgs {
    #[command(subcommand)]
    pub verb: PackageVerb,
}

/// What to do with a package.
#[derive(Debug, Subcommand)]
pub enum PackageVerb {
    /// Say everything that is wrong with a package, and what it would do
    Check(CheckArgs),
    /// Compare two versions of a program or library, and make a package of what changed between them
    Build(Box<BuildArgs>),
}

/// What a package is made of.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The version that runs: an ELF file, a Debian package (a file), or `package=version`, which is fetched with apt-get.
    #[arg(long, value_name = "OLD")]
    pub old: OsString,
    /// The new version, given in the same ways.
    #[arg(long, value_name = "NEW")]
    pub new: OsString,
    /// Which file of the Debian packages is meant, where several could be.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// The directory that is made; there must be none [default: the package's name].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// The package's name [default: the file's name and the first digits of its build-id].
    #[arg(long, value_name = "NAME", value_parser = package::parse_name)]
    pub name: Option<String>,
    /// A file of rules for the differences that are meant; one for each time the option is given.
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// A shared object with `mvedsua_before` or `mvedsua_after`, which are called in the new version; docs/binary.md tells of it.
    #[arg(long, value_name = "FILE")]
    pub hooks: Option<PathBuf>,
    /// An object that the hooks convert: what it holds, or its size, may differ then. By its name, or its address in the old
    /// version; with `+OLD:NEW` its sizes. One for each time the option is given.
    #[arg(long, value_name = "OBJECT[+OLD:NEW]", requires = "hooks", value_parser = transforms::parse)]
    pub(super) transforms: Vec<transforms::Wanted>,
    /// Numbers in the code that follow the sizes of such objects: what they were and are.
    #[arg(long, value_name = "OLD:NEW", requires = "transforms", value_parser = transforms::pair)]
    pub follows: Vec<(u64, u64)>,
    #[command(flatten)]
    pub debug: DebugArgs,
    /// Build what has no debug file from the distribution's sources, as root, and prove the update with it. What comes out must be
    /// what is shipped, byte by byte. A build takes minutes; what it tells is kept.
    #[arg(long)]
    pub twin: bool,
    /// Where twins, and the root directory in which they are built, are kept.
    #[arg(long, value_name = "DIR", requires = "twin", default_value = twin::PLACE)]
    pub twins: PathBuf,
    /// What the builds of twins may reach. `none` takes a network namespace; where none can be had, `host` does without.
    #[arg(long, value_name = "NETWORK", requires = "twin", value_enum, default_value = "none")]
    pub(super) twin_network: twin::Network,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The directory or the tar archive.
    #[arg(value_name = "DIR|TAR")]
    pub path: PathBuf,
    /// See whether it is for the version that this process runs, too. For `method = "binary"` that version is compared with
    /// the package's again, which shows what changed.
    #[arg(long, value_name = "PID", value_parser = units::parse_pid)]
    pub target: Option<i32>,
    /// For `method = "binary"`: compare this version with the package's again, which shows what changed. It is named as in
    /// `compare`.
    #[arg(long, value_name = "OLD")]
    pub old: Option<OsString>,
    /// Which file of the Debian package is meant, where several could be.
    #[arg(long, value_name = "PATH", requires = "old")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub verb: RulesVerb,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesVerb {
    /// Say everything that is wrong with a file of rules, and what is suspicious
    Check(RulesCheckArgs),
    /// Run rules over a recording that `update --record` or `run --record` wrote, and say what each rule matched
    Test(RulesTestArgs),
}

#[derive(Debug, Args)]
pub struct RulesCheckArgs {
    /// The file of rules.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct RulesTestArgs {
    /// The file of rules.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the leader did.
    #[arg(long, value_name = "FILE")]
    pub recording: PathBuf,
    /// Which version led; without it the recording says so.
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
}

#[derive(Debug, Args)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Promote although too little was compared.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Why, for the history.
    #[arg(long, default_value = "by hand", value_name = "TEXT")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many to list.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The number of the update, as `history` lists it; the last one otherwise.
    #[arg(long, value_name = "N")]
    pub update: Option<u64>,
    /// With --json or --html: include the payloads, which may hold secrets.
    #[arg(long)]
    pub payloads: bool,
    /// Write the report as one page for browsers, which needs nothing else; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen: an address of this machine alone; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Take the token from this file, which is made where it is missing, so that the address stays the same
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_long_help = EVENTS_HELP)]
pub struct EventsArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Only what came after the event with this number; 0 is everything that is kept
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Go on with what happens from now on, until interrupted; without --since nothing older is told
    #[arg(long)]
    pub follow: bool,
}

const EVENTS_HELP: &str = "\
With --json each event is one object on a line of its own. `seq` counts up by one, over all daemons of a state directory; whoever
is interrupted goes on with `--since`. The last 4096 events are kept. Where some are not kept any more a line
{\"missed\":{\"after\":A,\"next\":B}} says so: those after A and before B. Where B is not greater than A, the numbers have begun
anew.
";

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this process too.
    #[arg(long, value_name = "PID", value_parser = units::parse_pid)]
    pub target: Option<i32>,
    /// Look at the process that runs this executable too (a path or a name).
    #[arg(long, value_name = "EXE", conflicts_with = "target")]
    pub exe: Option<String>,
    /// Look at the process that listens on this TCP port too.
    #[arg(long, value_name = "PORT", conflicts_with_all = ["target", "exe"])]
    pub port: Option<u16>,
    /// Look at the main process of this systemd unit too.
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["target", "exe", "port"])]
    pub unit: Option<String>,
}

impl DoctorArgs {
    /// Returns the process that is to be looked at, if any.
    #[must_use]
    pub fn target(&self) -> TargetArgs {
        TargetArgs { pid: self.target, exe: self.exe.clone(), port: self.port, unit: self.unit.clone() }
    }
}

#[derive(Debug, Args)]
#[command(after_long_help = RUN_CODES)]
pub struct RunArgs {
    /// Another version, which follows; one for each time the option is given. Its words are split as in a shell, without
    /// expansions; rules for the differences that are meant come behind it: 'CMD ARGS,rules=FILE'
    #[arg(long, value_name = "CMD[,rules=FILE]")]
    pub follower: Vec<String>,
    /// How often the same version follows itself
    #[arg(long = "self", value_name = "N", default_value_t = 0)]
    pub copies: usize,
    /// Give all versions the same addresses each time, for programs that make something of them: names of temporary files,
    /// seeds, orders of tables
    #[arg(long)]
    pub no_aslr: bool,
    /// What happens when a follower parts from the leader, or cannot follow [default: drop, or stop with --lockstep=all]
    #[arg(long, value_enum)]
    pub on_divergence: Option<OnDivergence>,
    /// Let an output of the leader out only when all followers, or a majority of the versions, have produced the same
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all", value_name = "WHOSE")]
    pub lockstep: Option<Quorum>,
    /// What happens when a follower's log is full
    #[arg(long, value_enum, default_value_t)]
    pub on_full: OnFullLog,
    /// Memory for the log of each process and follower
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE", default_value = "256M")]
    pub log_memory: u64,
    /// Room on disk for the log of each process and follower once its memory is full; it has no name and goes with the run
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE", default_value = "4G")]
    pub log_disk: u64,
    /// How the program's threads run beside each other: one at a time between their calls, in an order that the followers
    /// keep, or freely, where they may part by taking locks in another order
    #[arg(long, value_enum, default_value_t)]
    pub threads: Interleaving,
    /// How long a follower may be silent although there is something for it to do
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", default_value = "30s")]
    pub hang_timeout: Duration,
    /// Write what came of each follower into a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Record what the program does into a new file, for `replay` and `rules test`. It holds all that the program reads and
    /// writes
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// With --report and --json: include the payloads, which may hold secrets
    #[arg(long)]
    pub payloads: bool,
    /// Say what came of each follower even if all followed
    #[arg(long, short)]
    pub verbose: bool,
    /// The program that leads, with its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What is to be replayed.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = REPLAY_CODES)]
pub struct ReplayArgs {
    /// The recording, of `run --record`
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,
    /// Rules for the differences that are meant
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Give the program addresses that are the same each time; for what was recorded with `run --no-aslr`
    #[arg(long)]
    pub no_aslr: bool,
    /// Memory for the log of each process; the recording is read as fast as there is room
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE", default_value = "256M")]
    pub log_memory: u64,
    /// Room on disk for the log of each process once its memory is full
    #[arg(long, value_parser = crate::units::parse_size, value_name = "SIZE", default_value = "4G")]
    pub log_disk: u64,
    /// How long the program may be silent although there is something for it to do
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", default_value = "30s")]
    pub hang_timeout: Duration,
    /// With --json: include the payloads, which may hold secrets
    #[arg(long)]
    pub payloads: bool,
    /// The version that follows, with its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

const REPLAY_CODES: &str = "\
Exit codes of replay:
    0  the version lived through all of the recording
    2  usage, or the recording cannot be read
   10  the version parted from the recording
   12  inconclusive: the recording is not whole, or the version could not follow for another reason
  125  mvedsuad itself failed
  126  the program cannot be executed
  127  the program was not found
";

const RUN_CODES: &str = "\
Exit codes of run:
  The leader's, or 128 and the number of the signal that ended it; and
    2  usage
   10  with --on-divergence stop: a follower parted or failed, and the leader was ended
  125  mvedsuad itself failed
  126  the program cannot be executed
  127  the program was not found
";

/// What happens when a follower's log is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnFullLog {
    /// The leader waits until there is room.
    #[default]
    Wait,
    /// The follower is dropped.
    Drop,
}

#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Leave the terminal's session and say `ready` on standard output once requests are answered.
    #[arg(long, hide = true)]
    pub detached: bool,
    /// Write the log to standard error in this format; without it, to the journal where systemd started the daemon, and
    /// else as text to standard error. MVEDSUA_LOG says how much is written, such as `debug`.
    #[arg(long, env = "MVEDSUA_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    Man,
    Completions,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[arg(value_enum)]
    pub what: What,
    /// The directory, created where it is missing.
    pub dir: PathBuf,
}
