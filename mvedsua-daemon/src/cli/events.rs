//! `events`.

use serde_json::json;

use super::args::{Cli, EventsArgs};
use super::client::{Client, mismatched};
use super::{out, target};
use crate::control::Code;
use crate::control::clock::show_ms;
use crate::control::events::Event;
use crate::control::process::Wanted;
use crate::control::protocol::{Answer, Problem, Request};

pub(super) fn events(cli: &Cli, args: &EventsArgs) -> Result<Code, Problem> {
    let pid = match args.target.wanted() {
        None => None,
        // It may have ended long ago.
        Some(Wanted::Pid(pid)) => Some(pid),
        Some(_) => Some(target::find(&args.target, "looking for its events")?),
    };
    let mut client = Client::connect(&cli.place.dirs())?;
    let mut last = args.since;
    let request = Request::Events { since: args.since, follow: args.follow, pid };
    let answer = client.follow(request, |answer| {
        match &answer {
            Answer::Happened(event) => last = Some(event.seq),
            Answer::Missed { next, .. } => last = Some(next.saturating_sub(1)),
            _ => {}
        }
        show(cli, &answer);
    });
    match answer {
        Ok(Answer::Done {}) => Ok(Code::Done),
        Ok(other) => Err(mismatched(&other)),
        Err(problem) => Err(match last {
            Some(last) if problem.code == Code::Unreachable => {
                let remedy = format!("`mvedsuad events --follow --since {last}` goes on where this ended");
                Problem { remedy, ..problem }
            }
            Some(_) | None => problem,
        }),
    }
}

fn show(cli: &Cli, answer: &Answer) {
    match answer {
        Answer::Happened(event) if cli.json => out::json(event),
        Answer::Happened(event) => out::text(&line(event)),
        Answer::Missed { after, next } if cli.json => out::json(&json!({"missed": {"after": after, "next": next}})),
        Answer::Missed { after, next } => out::text(&missed(*after, *next)),
        _ => {}
    }
}

fn line(event: &Event) -> String {
    let update = event.update.map(|update| format!("update {update} of ")).unwrap_or_default();
    let who = match (&event.target, event.pid) {
        (Some(target), Some(pid)) => format!("{update}{target} ({pid}): "),
        _ => String::new(),
    };
    format!("{:>6} {} {who}{}\n", event.seq, show_ms(event.at_ms), event.what)
}

fn missed(after: u64, next: u64) -> String {
    if next <= after {
        return format!("       the numbers begin anew with {next}: the file of events did not hold {after}\n");
    }
    format!("       {} events are not kept any more\n", next - after - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::events::What;

    #[test]
    fn a_line_says_when_of_whom_and_what() {
        let what = What::Retry { attempt: 2, of: 9, after_ms: 500 };
        let target = Some("redis".to_owned());
        let event = Event { seq: 12, at_ms: 1000, update: Some(3), pid: Some(7), target, owner: Some(0), what };
        let text = line(&event);
        assert_eq!(text, "    12 1970-01-01T00:00:01Z update 3 of redis (7): attempt 2 of 9 starts in 500 ms\n");
        assert!(missed(3, 9).contains("5 events"));
        assert!(missed(9, 3).contains("begin anew with 3"));
    }
}
