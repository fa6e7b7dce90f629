//! MQTT 3.1.1: a dialogue of a client that publishes to itself.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Verdict};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const QOS_1: u8 = 0x02;

/// A client that is subscribed to what it publishes.
#[derive(Debug)]
pub struct MqttClient {
    name: String,
    /// Requests on this connection so far.
    asked: u64,
    packet: u16,
    /// Packets that must come, in any order: the broker may confirm a message before it delivers it, or after. A delivered
    /// message of quality 1 has a number of the broker's, which is left out here.
    awaited: Vec<Vec<u8>>,
    /// The number of the message that was delivered and is still to be confirmed by us.
    to_confirm: Option<[u8; 2]>,
    doing: &'static str,
}

impl MqttClient {
    /// Makes a client with topics of its own.
    #[must_use]
    pub fn new(name: &str) -> MqttClient {
        MqttClient {
            name: name.to_owned(),
            asked: 0,
            packet: 0,
            awaited: Vec::new(),
            to_confirm: None,
            doing: "nothing",
        }
    }

    fn connect(&mut self, out: &mut Vec<u8>) {
        let head = [0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
        packet(out, CONNECT, &[&head, &text(&self.name)]);
        self.expect("CONNECT", [whole(CONNACK, &[&[0, 0]])]);
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        let id = self.packet.to_be_bytes();
        packet(out, SUBSCRIBE, &[&id, &text(&format!("{}/#", self.name)), &[1]]);
        self.expect("SUBSCRIBE", [whole(SUBACK, &[&id, &[1]])]);
    }

    fn publish(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let size = if random.random_range(0..20) == 0 { 20_000 } else { random.random_range(0..300) };
        let seed: u8 = random.random();
        let payload: Vec<u8> = (0..size).map(|i: usize| seed.wrapping_add((i % 247) as u8)).collect();
        let topic = text(&format!("{}/{}", self.name, random.random_range(0..20)));
        if random.random_range(0..2) == 0 {
            packet(out, PUBLISH, &[&topic, &payload]);
            self.expect("PUBLISH of quality 0", [whole(PUBLISH, &[&topic, &payload])]);
        } else {
            let id = self.packet.to_be_bytes();
            packet(out, PUBLISH | QOS_1, &[&topic, &id, &payload]);
            let delivered = whole(PUBLISH | QOS_1, &[&topic, &payload]);
            self.expect("PUBLISH of quality 1", [delivered, whole(PUBACK, &[&id])]);
        }
    }

    fn expect<const N: usize>(&mut self, doing: &'static str, packets: [Vec<u8>; N]) {
        self.doing = doing;
        self.awaited = packets.into();
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// Writes a packet: kind and flags, the length in groups of seven bits, the body.
fn packet(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let group = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { group | 0x80 } else { group });
        if length == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What a packet is compared by: its kind and flags, and its body.
fn whole(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![kind];
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Takes the first packet apart: kind and flags, body, length of the whole; `None` while a part of it is missing.
fn first(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let kind = *input.first()?;
    let (mut length, mut at) = (0, 1);
    loop {
        let group = *input.get(at)?;
        length |= usize::from(group & 0x7f) << (7 * (at - 1));
        at += 1;
        if group & 0x80 == 0 || at > 4 {
            break;
        }
    }
    Some((kind, input.get(at..at + length)?, at + length))
}

impl Dialogue for MqttClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        self.asked += 1;
        // A number must not be 0.
        self.packet = self.packet.wrapping_add(1).max(1);
        if let Some(id) = self.to_confirm.take() {
            packet(out, PUBACK, &[&id]);
        }
        match self.asked {
            1 => self.connect(out),
            2 => self.subscribe(out),
            _ if random.random_range(0..20) == 0 => {
                packet(out, PINGREQ, &[]);
                self.expect("PINGREQ", [whole(PINGRESP, &[])]);
            }
            _ => self.publish(random, out),
        }
    }

    fn connected(&mut self) {
        self.asked = 0;
        self.to_confirm = None;
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        let mut awaited = self.awaited.clone();
        let mut confirm = None;
        let mut at = 0;
        while !awaited.is_empty() {
            let Some((kind, body, length)) = first(&input[at..]) else { return Verdict::Incomplete };
            let mut came = whole(kind, &[body]);
            if kind == PUBLISH | QOS_1 && body.len() >= 2 {
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let Some(id) = body.get(topic_end..topic_end + 2) else {
                    return Verdict::Wrong(format!("{}: a message without a number: {body:02x?}", self.doing));
                };
                confirm = Some([id[0], id[1]]);
                came = whole(kind, &[&body[..topic_end], &body[topic_end + 2..]]);
            }
            let Some(found) = awaited.iter().position(|packet| *packet == came) else {
                let shown = &came[..came.len().min(60)];
                return Verdict::Wrong(format!("{} was answered {shown:02x?}", self.doing));
            };
            awaited.remove(found);
            at += length;
        }
        self.to_confirm = confirm;
        Verdict::Right(at)
    }
}
