//! Redis: a checking dialogue of values that are restored, read and dumped.
//!
//! Some of them are in the forms of older versions, which Redis checks and converts when it loads them.

use rand::Rng;
use rand::rngs::StdRng;

use super::resp::{bulk, check_bytes, encode};
use super::{Dialogue, Verdict};

/// One value: how it is restored, how it is read, and how it is dumped. The dumps are those of Redis 7.0.
struct Value {
    /// What `RESTORE` gets, in hexadecimal digits.
    dumped: &'static str,
    /// The command that reads it; `@` stands for the key.
    read: &'static [&'static str],
    reply: &'static [u8],
    /// What `DUMP` gives afterwards, where that is something else.
    dumped_again: Option<&'static str>,
}

const HASH: &str = "1019190000000400846e616d65058576616c756506816e020701ff0a00470d4a35a3e1248d";
const PAIRS: &[u8] = b"*4\r\n$4\r\nname\r\n$5\r\nvalue\r\n$1\r\nn\r\n$1\r\n7\r\n";

const VALUES: [Value; 8] = [
    Value {
        dumped: "001868656c6c6f20776f726c642c2068656c6c6f20776f726c640a0070d858885b324ed9",
        read: &["GETRANGE", "@", "-5", "-1"],
        reply: b"$5\r\nworld\r\n",
        dumped_again: None,
    },
    Value { dumped: "00c139300a009d94ea2793fc08b9", read: &["STRLEN", "@"], reply: b":5\r\n", dumped_again: None },
    Value {
        dumped: "12010215150000000300836f6e6504020185746872656506ff0a00a2cdcb41827317f5",
        read: &["LRANGE", "@", "0", "-1"],
        reply: b"*3\r\n$3\r\none\r\n$1\r\n2\r\n$5\r\nthree\r\n",
        dumped_again: None,
    },
    Value { dumped: HASH, read: &["HGETALL", "@"], reply: PAIRS, dumped_again: None },
    // A zipmap and a ziplist, both of which become a listpack.
    Value {
        dumped: "091302046e616d65050076616c7565016e010037ff0a00d0ac58ce57dc75f1",
        read: &["HGETALL", "@"],
        reply: PAIRS,
        dumped_again: Some(HASH),
    },
    Value {
        dumped: "0d1d1d0000001a000000040000046e616d65060576616c756507016e03f8ff0a00eaa56c5d2a86094a",
        read: &["HGETALL", "@"],
        reply: PAIRS,
        dumped_again: Some(HASH),
    },
    Value {
        dumped: "0b0e0200000003000000010002002c010a00e510b28e7b9529aa",
        read: &["SMEMBERS", "@"],
        reply: b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$3\r\n300\r\n",
        dumped_again: None,
    },
    Value {
        dumped: "1114140000000400816102010181620283322e3504ff0a00d44c6ea4f644d9d7",
        read: &["ZRANGE", "@", "0", "-1", "WITHSCORES"],
        reply: b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n",
        dumped_again: None,
    },
];

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Restore,
    Read,
    Dump,
    Delete,
}

/// A client with one key, which holds one of the values after the other.
#[derive(Debug)]
pub struct ValueClient {
    key: String,
    number: usize,
    step: Step,
    expected: Vec<u8>,
    /// The command that is in flight, for the message.
    command: String,
}

impl ValueClient {
    /// Makes a client whose key begins with `name`.
    #[must_use]
    pub fn new(name: &str) -> ValueClient {
        let key = format!("{name}:value");
        ValueClient { key, number: 0, step: Step::Restore, expected: Vec::new(), command: String::new() }
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("the table has digits in pairs");
    (0..digits.len()).step_by(2).map(byte).collect()
}

impl Dialogue for ValueClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let key = self.key.as_bytes();
        let (words, expected, next): (Vec<Vec<u8>>, Vec<u8>, Step) = match self.step {
            Step::Restore => {
                self.number = random.random_range(0..VALUES.len());
                let dumped = bytes(VALUES[self.number].dumped);
                let words = vec![b"RESTORE".to_vec(), key.to_vec(), b"0".to_vec(), dumped, b"REPLACE".to_vec()];
                (words, b"+OK\r\n".to_vec(), Step::Read)
            }
            Step::Read => {
                let value = &VALUES[self.number];
                let word = |word: &&str| if *word == "@" { key.to_vec() } else { word.as_bytes().to_vec() };
                (value.read.iter().map(word).collect(), value.reply.to_vec(), Step::Dump)
            }
            Step::Dump => {
                let value = &VALUES[self.number];
                let dumped = bytes(value.dumped_again.unwrap_or(value.dumped));
                (vec![b"DUMP".to_vec(), key.to_vec()], bulk(Some(&dumped)), Step::Delete)
            }
            // Now and then the next value comes in the place of this one.
            Step::Delete if random.random_range(0..2) == 0 => {
                (vec![b"DEL".to_vec(), key.to_vec()], b":1\r\n".to_vec(), Step::Restore)
            }
            Step::Delete => (vec![b"EXISTS".to_vec(), key.to_vec()], b":1\r\n".to_vec(), Step::Restore),
        };
        let parts: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode(out, &parts);
        self.command = format!("{} of value {}", String::from_utf8_lossy(&words[0]), self.number);
        self.expected = expected;
        self.step = next;
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        check_bytes(&self.expected, input, &self.command)
    }
}
