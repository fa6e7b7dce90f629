//! A client has sent the beginning of a line when the versions are exchanged. Rules look at whole lines, so the version that
//! followed has not read it; it is given it once it leads, and the client is answered as if nothing had been.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use harness::kvstore::Store;
use harness::load::lines;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::process;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::wait::wait_for;
use nix::sys::signal::Signal;

const CLIENTS: usize = 5;
const ENTRIES: u64 = 1000;

/// A client that says what it is told to, however little.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(STEP_LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Returns the next line of the answer; empty at the end of the connection.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

struct World {
    stand: Stand,
    load: Load<StoreClient>,
    _store: Store,
}

impl World {
    /// Version 2 follows version 1, with rules for lines.
    fn new() -> World {
        World::after(|_| ()).0
    }

    /// The same, once something was done with the store before its update.
    fn after<T>(what: impl FnOnce(SocketAddr) -> T) -> (World, T) {
        let store = Store::compile(&[]).unwrap();
        let package = store.typed_package("v2", "").unwrap();
        let stand = Stand::new(store.start(ENTRIES).unwrap());
        for name in 1..=5 {
            // No client of the load knows these.
            let answer = lines::ask(stand.server.address, &format!("put own{name} value{name}"), STEP_LIMIT).unwrap();
            assert_eq!(answer, "OK");
        }
        let done = what(stand.server.address);
        let client = |index| StoreClient::new(Speech::Common, index, CLIENTS, ENTRIES);
        // The halves of lines are said by the clients of the test.
        let plan = Plan { split_one_in: 0, ..Plan::busy(stand.server.address, CLIENTS) };
        let load = Load::start(plan, client);
        let (pid, to) = (stand.serving.to_string(), package.display().to_string());
        stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
        stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
        let world = World { stand, load, _store: store };
        world.wait_compared(200);
        (world, done)
    }

    fn client(&self) -> Client {
        Client::new(self.stand.server.address)
    }

    /// Waits until that many more outputs were compared, so that what was said before has been read.
    fn wait_compared(&self, outputs: u64) {
        let status = self.stand.daemon.status(self.stand.serving).unwrap().expect("an update");
        self.stand.wait_compared(status.compared_outputs + outputs);
    }

    /// Does something while a command is carried out.
    fn during(&self, command: &str, what: impl FnOnce()) {
        let (daemon, pid) = (&self.stand.daemon, self.stand.serving.to_string());
        std::thread::scope(|scope| {
            scope.spawn(|| daemon.expect(&[command, &pid], code::DONE));
            what();
        });
    }

    fn expect_clean(self) {
        self.stand.expect_alone();
        self.stand.expect_clean(self.load);
    }
}

#[test]
fn a_line_that_was_half_read_at_the_fork_says_nothing_of_the_new_version() {
    let (mut world, mut client) = World::after(|address| {
        let mut client = Client::new(address);
        client.say("put own1 b");
        // The store has one thread: what came before was read before.
        assert_eq!(lines::ask(address, "get own2", STEP_LIMIT).unwrap(), "value2");
        client
    });
    // No rule has seen how it began, so version 2 finds that it has no type.
    client.say("ar\nget own1\n");
    assert_eq!(client.hear(), "OK\n");
    assert_eq!(client.hear(), "bar\n");
    let (daemon, pid) = (&world.stand.daemon, world.stand.serving);
    wait_for("another attempt", STEP_LIMIT, || {
        let status = daemon.status(pid).unwrap().expect("an update");
        (status.raw["update"]["plan"]["attempt"].as_u64() > Some(1)).then_some(())
    });
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    world.wait_compared(200);
    world.stand.promote();
    world.stand.confirm();
    client.say("type own1\n");
    assert_eq!(client.hear(), "string\n", "version 2 serves");
    world.expect_clean();
}

#[test]
fn a_line_that_began_before_a_promotion_is_answered_after_it() {
    let mut world = World::new();
    let (mut one, mut two, mut three) = (world.client(), world.client(), world.client());
    one.say("get ow");
    two.say("get own2\nget ");
    assert_eq!(two.hear(), "value2\n");
    three.say("ge");
    world.wait_compared(100);
    world.stand.promote();
    // Both versions answer the same, in pieces as well.
    one.say("n");
    world.wait_compared(50);
    one.say("1\nget o");
    assert_eq!(one.hear(), "value1\n");
    two.say("own3\n");
    assert_eq!(two.hear(), "value3\n");
    one.say("wn4\n");
    assert_eq!(one.hear(), "value4\n");
    world.wait_compared(100);
    // The end of the update waits for who has not finished its line.
    world.during("confirm", || {
        three.say("t own5\n");
        assert_eq!(three.hear(), "value5\n");
    });
    world.stand.settled();
    world.expect_clean();
}

#[test]
fn a_line_that_began_before_a_rollback_is_answered_after_it() {
    let mut world = World::new();
    world.stand.promote();
    world.wait_compared(100);
    let mut client = world.client();
    client.say("get ow");
    world.wait_compared(100);
    world.during("rollback", || {
        client.say("n1\n");
        assert_eq!(client.hear(), "value1\n");
    });
    world.stand.settled();
    client.say("type own1\n");
    assert_eq!(client.hear(), "ERROR\n", "version 1 serves");
    world.expect_clean();
}

#[test]
fn a_line_that_began_before_a_crash_is_answered_after_it() {
    let mut world = World::new();
    let mut client = world.client();
    client.say("get ow");
    world.wait_compared(100);
    process::signal(world.stand.serving, Signal::SIGSEGV);
    client.say("n1\n");
    assert_eq!(client.hear(), "value1\n");
    world.stand.taken_over();
    client.say("type own1\n");
    assert_eq!(client.hear(), "string\n", "version 2 serves");
    world.expect_clean();
}

#[test]
fn who_never_finishes_its_line_does_not_keep_an_update_from_its_end() {
    let mut world = World::new();
    let mut client = world.client();
    client.say("get ow");
    world.wait_compared(100);
    world.stand.promote();
    world.stand.confirm();
    assert_eq!(client.hear(), "", "the connection is ended");
    world.expect_clean();
}
