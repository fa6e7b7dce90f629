//! The second act: a store goes to a version 2 with another protocol and another layout of its data, while its clients stay
//! connected. Before that, a version 2 with a fault goes nowhere.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::kvstore::Store;
use harness::load::lines::ask;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::stand::{SINGLE, UPDATED, VALIDATING, code};

use super::story::{Story, count};
use super::{Born, LIMIT, check_alone, command, command_ends, follow, rate, wait_for_requests};

/// Entries that the store begins with, and clients that ask for them.
const ENTRIES: u64 = 200_000;
const CLIENTS: usize = 20;
/// The faulty version 2 answers every so many gets wrong.
const FAULT: &str = "-DBAD_BYTE_EVERY=1000";

pub(super) fn tell(story: &mut Story, binary: &Path) -> Result<()> {
    story.chapter("A key-value store, version 1");
    let store = Store::compile(&[])?;
    let server = store.start(ENTRIES)?;
    let line = |line: &str| ask(server.address, line, LIMIT).with_context(|| format!("asking {line:?}"));
    let load = Load::start(Plan::busy(server.address, CLIENTS), |index| {
        StoreClient::new(Speech::Common, index, CLIENTS, ENTRIES)
    });
    let born = Born::of(&server)?;
    story.say(&format!("kvstore, {born}, on {}; {} entries", server.address, count(ENTRIES)));
    story.say(&format!("put ann 1 -> {}; version 2 will want a type: put string ann 1", line("put ann 1")?));
    rate(story, &load, "version 1");
    let daemon = Daemon::prepare(binary)?;
    let pid = server.pid().to_string();

    story.chapter("A version 2 that answers one byte wrong, once in a thousand");
    let bad = store.package("faulty", &[FAULT], "")?.display().to_string();
    command_ends(story, &daemon, &["update", &pid, "--to", &bad, "--promote", "manual", "--wait"], code::DIVERGED)?;
    command(story, &daemon, &["report"])?;
    rate(story, &load, "version 1, as if nothing had been");
    let status = daemon.status(server.pid())?.context("the daemon forgot the process")?;
    let leads = status.raw["versions"][0]["which"].as_str().unwrap_or_default().to_owned();
    let unharmed = load.failed() == 0 && leads == "old";

    story.chapter("Version 2");
    let good = store.typed_package("v2", "")?.display().to_string();
    command(story, &daemon, &["package", "check", &good, "--target", &pid])?;
    command(story, &daemon, &["update", &pid, "--to", &good, "--promote", "manual"])?;
    follow(story, &daemon, server.pid(), VALIDATING)?;
    rate(story, &load, "version 1 leads, version 2 follows");
    let says = |request: &str| line(request).map(|answer| format!("{request} -> {answer}"));
    story.say("version 1 still answers as it always did, and the package's rules say what version 2 makes of it:");
    for request in ["put ben 5", "put string ben 6", "type ben"] {
        story.say(&says(request)?);
    }
    command(story, &daemon, &["promote", &pid])?;
    follow(story, &daemon, server.pid(), UPDATED)?;
    rate(story, &load, "version 2 leads, version 1 follows");
    story.say("now clients may speak to version 2, and the reverse rules say what version 1 makes of it:");
    for request in ["put string ben 6", "type ben", "put ben 7"] {
        story.say(&says(request)?);
    }
    command(story, &daemon, &["status"])?;
    command(story, &daemon, &["confirm", &pid])?;
    follow(story, &daemon, server.pid(), SINGLE)?;
    wait_for_requests(&load, 1_000)?;

    story.chapter("What became of the store");
    let answers = ["get ann", "type ann", "put ann 2", "put int ann 2", "type ann", "get ben"].map(says);
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let summary = load.stop();
    let speaks = [
        "get ann -> 1",
        "type ann -> string",
        "put ann 2 -> ERROR",
        "put int ann 2 -> OK",
        "type ann -> int",
        "get ben -> 6",
    ];
    ensure!(summary.requests > 0, "nobody asked anything");
    story.check("the faulty version never came into service", unharmed, || format!("the {leads} version served on"));
    story.check("version 2 serves", answers == speaks, || answers.join("; "));
    born.check_same(story, &server);
    check_alone(story, &server);
    let kept = summary.connects == CLIENTS as u64;
    story.check("every client kept its connection", kept, || format!("{} of {CLIENTS}", summary.connects));
    story.check("no request failed or was answered wrongly", summary.failed == 0, || match summary.failures.first() {
        Some(failure) => format!("{} did, the first: {failure}", summary.failed),
        None => format!("{} requests", count(summary.requests)),
    });
    Ok(())
}
