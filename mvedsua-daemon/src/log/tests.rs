use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::spill::Medium;
use super::{Config, FullReason, Reader, Writer, channel, open};
use crate::record::{CallEntry, CallReturn, Event, LeaderAddr, Nanos, Piece, PieceDir, Record, Seq, Slot};

const DEADLINE: Duration = Duration::from_secs(20);

fn config(memory: u64, disk: u64) -> Config {
    Config { memory, disk, spill_dir: std::env::temp_dir() }
}

/// A write call with `size` bytes of payload that tell its number.
fn call(number: u64, size: usize) -> Event {
    let bytes: Vec<u8> = (0..size).map(|i| (number as usize * 31 + i) as u8).collect();
    let piece = Piece { arg: 1, part: 0, dir: PieceDir::In, addr: LeaderAddr(0x1000), bytes: Bytes::from(bytes) };
    Event::Call(
        CallEntry { nr: 1, args: [number, 0x1000, size as u64, 0, 0, 0], inputs: vec![piece], at: Nanos(number) },
        CallReturn { ret: size as i64, outputs: Vec::new(), at: Nanos(number + 1) },
    )
}

fn charge(size: usize) -> u64 {
    Record { seq: Seq(0), slot: Slot(0), event: call(0, size) }.footprint() as u64
}

fn assert_is(record: &Record, number: u64, size: usize) {
    assert_eq!(*record, Record { seq: Seq(number), slot: Slot((number % 3) as u32), event: call(number, size) });
}

fn append(writer: &mut Writer, number: u64, size: usize) -> Result<Seq, FullReason> {
    writer.append(Slot((number % 3) as u32), call(number, size)).map_err(|full| {
        assert_eq!(*full.event, call(number, size), "a refused record is handed back whole");
        full.reason
    })
}

fn within_budgets(writer: &Writer) {
    let reading = writer.gauge().read();
    assert!(reading.memory <= reading.memory_budget, "{reading:?}");
    assert!(reading.disk <= reading.disk_budget, "{reading:?}");
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        std::thread::yield_now();
    }
}

/// Returns the next record, which may be on its way to the disk and back.
fn taken(reader: &mut Reader) -> Record {
    wait_for("a record", || reader.next())
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..300_usize, 1 => 0..20_000_usize];
    let step = prop_oneof![3 => size.prop_map(Step::Append), 1 => (0..12_usize).prop_map(Step::Read)];
    prop::collection::vec(step, 0..250)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Whatever the budgets and the interleaving: order and content are kept, budgets are respected, and a refused record
    /// leaves no hole.
    #[test]
    fn order_content_and_budgets(memory in 0..40_000_u64, disk in 0..60_000_u64, steps in steps()) {
        let (mut writer, mut reader) = channel(config(memory, disk));
        let mut sizes = Vec::new();
        let mut read = 0_usize;
        for step in steps {
            match step {
                Step::Append(size) => match append(&mut writer, sizes.len() as u64, size) {
                    Ok(seq) => {
                        prop_assert_eq!(seq, Seq(sizes.len() as u64));
                        sizes.push(size);
                    }
                    Err(FullReason::Oversized { .. }) => prop_assert!(charge(size) > memory),
                    Err(reason) => {
                        prop_assert!(matches!(reason, FullReason::Budgets { .. }), "{reason:?}");
                    }
                },
                Step::Read(count) => for _ in 0..count {
                    if read == sizes.len() {
                        prop_assert_eq!(reader.next(), None);
                        continue;
                    }
                    let peeked = wait_for("a record", || reader.peek().cloned());
                    let record = reader.next();
                    prop_assert_eq!(Some(&peeked), record.as_ref());
                    assert_is(&peeked, read as u64, sizes[read]);
                    read += 1;
                },
            }
            within_budgets(&writer);
            prop_assert_eq!(reader.backlog(), (sizes.len() - read) as u64);
        }
        writer.close();
        while read < sizes.len() {
            assert_is(&taken(&mut reader), read as u64, sizes[read]);
            read += 1;
        }
        prop_assert_eq!(reader.next(), None);
        prop_assert!(reader.is_finished());
    }
}

/// Feeds a consumer thread that sleeps in its inbox between records; a lost wake-up would end in the deadline.
fn consume_in_a_thread(mut reader: Reader, until: u64, size: usize) -> std::thread::JoinHandle<Reader> {
    let (wake, woken) = mpsc::channel();
    let wake = Mutex::new(wake);
    reader.set_waker(Arc::new(move || {
        let _ = wake.lock().unwrap().send(());
    }));
    std::thread::spawn(move || {
        let mut number = 0;
        while number < until {
            match reader.next() {
                Some(record) => {
                    assert_is(&record, number, size);
                    number += 1;
                }
                None if reader.is_finished() => break,
                None if reader.arm() => woken.recv_timeout(DEADLINE).expect("a wake-up was lost"),
                None => {}
            }
        }
        reader
    })
}

#[test]
fn two_threads_lose_neither_records_nor_wake_ups() {
    const COUNT: u64 = 200_000;
    for (memory, disk) in [(20 * charge(40), 0), (20 * charge(40), 8_000), (u64::MAX >> 1, 0)] {
        let (mut writer, reader) = channel(config(memory, disk));
        let (wake, woken) = mpsc::channel();
        let wake = Mutex::new(wake);
        writer.set_waker(Arc::new(move || {
            let _ = wake.lock().unwrap().send(());
        }));
        let consumer = consume_in_a_thread(reader, COUNT, 40);
        let mut number = 0;
        while number < COUNT {
            match append(&mut writer, number, 40) {
                Ok(_) => number += 1,
                Err(FullReason::Budgets { .. }) => {
                    if writer.arm() {
                        woken.recv_timeout(DEADLINE).expect("the writer's wake-up was lost");
                    }
                }
                Err(reason) => panic!("{reason}"),
            }
        }
        writer.close();
        let mut reader = consumer.join().unwrap();
        assert_eq!(reader.next(), None);
        assert!(reader.is_finished());
        let reading = reader.gauge().read();
        assert_eq!((reading.appended, reading.consumed, reading.memory), (COUNT, COUNT, 0));
    }
}

/// A disk that holds `capacity` bytes, hangs when it is told to, and can be damaged.
#[derive(Default)]
struct Disk {
    capacity: AtomicU64,
    hangs: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

impl Disk {
    fn answer(&self) {
        while self.hangs.load(SeqCst) {
            std::thread::yield_now();
        }
    }
}

impl Medium for Disk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.answer();
        let mut held = self.bytes.lock().unwrap();
        let room = self.capacity.load(SeqCst).saturating_sub(offset) as usize;
        let written = room.min(bytes.len());
        held.truncate(offset as usize);
        held.extend_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.answer();
        let held = self.bytes.lock().unwrap();
        let from = held.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn discard(&self, _start: u64, _end: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    fn reset(&self) -> io::Result<()> {
        self.answer();
        self.bytes.lock().unwrap().clear();
        Ok(())
    }
}

fn on_disk(memory: u64, disk: u64, capacity: u64) -> (Writer, Reader, Arc<Disk>) {
    let medium = Arc::new(Disk { capacity: AtomicU64::new(capacity), ..Disk::default() });
    let opened = Arc::clone(&medium);
    let (writer, reader) = open(&config(memory, disk), Box::new(move || Ok(opened.clone())));
    (writer, reader, medium)
}

/// Appends until there is no room; returns the number of the record that found none, and why.
fn fill(writer: &mut Writer, mut number: u64, size: usize) -> (u64, FullReason) {
    loop {
        match append(writer, number, size) {
            Ok(_) => number += 1,
            Err(reason) => return (number, reason),
        }
    }
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let (mut writer, mut reader, disk) = on_disk(3 * charge(100), 1 << 20, 100_000);
    let (mut written, reason) = fill(&mut writer, 0, 100);
    let FullReason::Disk { error } = reason else { panic!("{reason:?}") };
    assert!(error.contains("No space left"), "{error}");
    assert!(written > 6, "memory and disk were used before: {written}");

    // More room on the disk: the torn frame is overwritten and the order goes on.
    disk.capacity.store(1 << 20, SeqCst);
    wait_for("room", || append(&mut writer, written, 100).ok());
    written += 1;
    for number in 0..written {
        assert_is(&taken(&mut reader), number, 100);
    }
    assert_eq!(reader.next(), None);
    assert!(!writer.arm(), "the log is empty again");
    append(&mut writer, written, 100).unwrap();
    assert_is(&taken(&mut reader), written, 100);
}

#[test]
fn a_spill_directory_that_cannot_be_used_is_said_and_loses_nothing() {
    let config = Config { memory: charge(0), disk: 1 << 20, spill_dir: "/proc/self/nowhere".into() };
    let (mut writer, mut reader) = channel(config);
    let (written, reason) = fill(&mut writer, 0, 0);
    assert!(matches!(reason, FullReason::Disk { .. }), "{reason:?}");
    for number in 0..written {
        assert_is(&taken(&mut reader), number, 0);
    }
    append(&mut writer, written, 0).unwrap();
    assert_is(&taken(&mut reader), written, 0);
}

#[test]
fn a_disk_that_hangs_holds_up_neither_side_and_is_told() {
    const SIZE: usize = 1 << 16;
    for hangs_at in [0, 40] {
        let (mut writer, mut reader, disk) = on_disk(3 * charge(SIZE), 1 << 30, 1 << 30);
        for number in 0..hangs_at {
            append(&mut writer, number, SIZE).unwrap();
        }
        disk.hangs.store(true, SeqCst);
        let (written, reason) = fill(&mut writer, hangs_at, SIZE);
        assert!(matches!(reason, FullReason::Behind { hangs: None, .. }), "{reason:?}");
        assert!(reason.to_string().ends_with("wait for the disk, which does not take them in time"), "{reason}");
        assert!(writer.arm(), "there is no room");
        let gauge = writer.gauge();
        let told = wait_for("the disk to hang", || gauge.hangs());
        assert!(told.contains("records wait for a disk that has not answered for 5 s"), "{told}");
        assert!(writer.hangs());
        // What is in memory is there, and then nothing before the disk answers.
        let mut read = 0;
        while let Some(record) = reader.next() {
            assert_is(&record, read, SIZE);
            read += 1;
        }
        assert!((3..written).contains(&read), "{read}");
        assert!(reader.arm(), "there is nothing to do but to wait");
        disk.hangs.store(false, SeqCst);
        while read < written {
            assert_is(&taken(&mut reader), read, SIZE);
            read += 1;
        }
        assert_eq!(gauge.hangs(), None);
        append(&mut writer, written, SIZE).unwrap();
        assert_is(&taken(&mut reader), written, SIZE);
    }
}

#[test]
fn a_disk_that_hangs_keeps_nobody_from_the_end() {
    let (mut writer, reader, disk) = on_disk(0, 1 << 20, 1 << 20);
    disk.hangs.store(true, SeqCst);
    append(&mut writer, 0, 100).unwrap();
    drop(reader);
    assert_eq!(append(&mut writer, 1, 100), Err(FullReason::ReaderGone));
    drop(writer);
    disk.hangs.store(false, SeqCst);
    wait_for("the thread at the disk to end", || (Arc::strong_count(&disk) == 1).then_some(()));
}

#[test]
fn a_damaged_spill_file_is_a_gap() {
    // More than is read ahead, so that some of it is on the disk when that is damaged.
    let (mut writer, mut reader, disk) = on_disk(0, 1 << 24, 1 << 24);
    let mut number = 0;
    while number < 20 {
        match append(&mut writer, number, 100_000) {
            Ok(_) => number += 1,
            Err(FullReason::Behind { .. }) => std::thread::yield_now(),
            Err(reason) => panic!("{reason}"),
        }
    }
    // The first ones may have been read back before the next were written.
    wait_for("most to be on the disk", || (disk.bytes.lock().unwrap().len() > 1_500_000).then_some(()));
    disk.bytes.lock().unwrap()[1_000_000..1_400_000].fill(0xff);
    let last = loop {
        let record = taken(&mut reader);
        if reader.is_finished() {
            break record;
        }
    };
    assert!(matches!(last.event, Event::Gap(_)), "{last:?}");
}

#[test]
fn the_space_of_read_records_is_used_again_without_holes() {
    let (mut writer, mut reader, disk) = on_disk(0, 4000, 4000);
    for number in 0..500 {
        append(&mut writer, number, 100).unwrap();
        assert_is(&taken(&mut reader), number, 100);
    }
    assert!(disk.bytes.lock().unwrap().len() < 4000);
}

#[test]
fn the_spill_file_has_no_name_and_gives_consumed_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = 1 << 20;
    let (mut writer, mut reader) = channel(Config { memory: 0, disk, spill_dir: dir.path().join("spill") });
    let mut written = 0;
    let mut read = 0;
    // Ten times the budget flows through, with the file always between half full and full.
    while written < 10 * disk / 1000 {
        match append(&mut writer, written, 1000) {
            Ok(_) => written += 1,
            Err(FullReason::Budgets { .. }) => {
                for _ in 0..disk / 2000 {
                    assert_is(&taken(&mut reader), read, 1000);
                    read += 1;
                }
            }
            Err(reason) => panic!("{reason}"),
        }
        within_budgets(&writer);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("spill")).unwrap().count(), 0);
}

#[test]
fn a_log_without_a_reader_is_full_for_ever() {
    let (mut writer, reader) = channel(config(1 << 20, 0));
    drop(reader);
    assert_eq!(append(&mut writer, 0, 0), Err(FullReason::ReaderGone));
}
