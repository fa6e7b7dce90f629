//! `top`: what is observed and updated, live in a terminal.
//!
//! ```text
//!  daemon ──socket── feed (a thread) ──Heard──►┐
//!                                              ├─► model ──► draw (pure) ──► terminal
//!  terminal ──keys, sizes, signals────────────►┘     │
//!                                                    └──Effect──► ask (a thread for each request)
//! ```
//!
//! The model is plain data. What is drawn is a function of it, so it can be tried without a terminal and without a daemon.

mod calls;
mod draw;
mod feed;
mod keys;
mod model;
mod question;
mod screen;
#[cfg(test)]
pub(super) mod tests;

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::draw::Look;
use self::feed::Said;
use self::keys::Effect;
use self::model::{Focus, Model, Notice};
use self::screen::Screen;
use super::args::{Cli, TopArgs};
use super::client::Client;
use super::{observe, target};
use crate::control::Code;
use crate::control::clock::now_ms;
use crate::control::dirs::Dirs;
use crate::control::protocol::Problem;

/// How long keys and signals are waited for before something else is looked at.
const TURN: Duration = Duration::from_millis(100);
/// The shortest interval between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Shows the display, or, where there is no terminal for it, the table once.
pub(super) fn top(cli: &Cli, args: &TopArgs) -> Result<Code, Problem> {
    if args.once || cli.json || !io::stdout().is_terminal() {
        return observe::once(cli, &args.target);
    }
    let client = Client::connect(&cli.place.dirs())?;
    let selected = match args.target.wanted() {
        Some(_) => Some(target::find(&args.target, "looking at a process")?),
        None => None,
    };
    show(&cli.place.dirs(), args.interval.max(SHORTEST), client, selected)
}

fn show(dirs: &Dirs, interval: Duration, client: Client, selected: Option<i32>) -> Result<Code, Problem> {
    let look = Look::of_environment(|name| std::env::var(name).ok());
    let (to, from) = mpsc::channel();
    let (look_at, looked_at) = mpsc::channel();
    // Nobody listens who does not live.
    let _ = look_at.send(selected);
    feed::start(dirs.clone(), interval, client, looked_at, to.clone())?;
    let mut screen = Screen::take().map_err(|e| no_terminal(&e))?;
    let mut model = Model::new(selected, now_ms());
    let ended = run(&mut screen, &mut model, look, &Ends { dirs, from, to, look_at });
    let signal = screen.ended_by();
    drop(screen);
    if let Some(signal) = signal {
        screen::end_by(signal)?;
    }
    ended.map(|()| Code::Done)
}

/// The ends of the channels between the main loop and the threads that ask.
struct Ends<'a> {
    dirs: &'a Dirs,
    from: Receiver<Said>,
    to: Sender<Said>,
    look_at: Sender<Option<i32>>,
}

fn run(screen: &mut Screen, model: &mut Model, look: Look, ends: &Ends<'_>) -> Result<(), Problem> {
    while screen.ended_by().is_none() {
        model.now_ms = now_ms();
        loop {
            match ends.from.try_recv() {
                Ok(Said(heard)) => model.hear(heard),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(stopped()),
            }
        }
        screen.terminal.draw(|frame| draw::draw(model, frame, look)).map_err(|e| no_terminal(&e))?;
        let mut due = event::poll(TURN).map_err(|e| no_terminal(&e))?;
        while due {
            let effect = match event::read().map_err(|e| no_terminal(&e))? {
                Event::Key(key) if key.kind != KeyEventKind::Release => model.press(key),
                // The next drawing finds the new size.
                _ => None,
            };
            match effect {
                Some(Effect::Quit) => return Ok(()),
                effect => effect.map_or(Ok(()), |effect| perform(screen, model, ends, effect))?,
            }
            due = event::poll(Duration::ZERO).map_err(|e| no_terminal(&e))?;
        }
    }
    Ok(())
}

fn perform(screen: &mut Screen, model: &mut Model, ends: &Ends<'_>, effect: Effect) -> Result<(), Problem> {
    match effect {
        Effect::Quit => {}
        Effect::Suspend => screen.suspend().map_err(|e| no_terminal(&e))?,
        Effect::Redraw => screen.terminal.clear().map_err(|e| no_terminal(&e))?,
        Effect::Look => ends.look_at.send(model.selected).map_err(|_| stopped())?,
        Effect::Ask(verb, pid) => {
            if let Err(e) = feed::ask(ends.dirs.clone(), verb, pid, ends.to.clone()) {
                model.waits_for = None;
                let text = format!("no thread could be started: {e}; `mvedsuad` asks from another terminal, too");
                model.focus = Focus::Notice(Notice { title: format!("{} not asked for", verb.noun()), text });
            }
        }
    }
    Ok(())
}

fn no_terminal(e: &io::Error) -> Problem {
    let remedy =
        "`mvedsuad top --once` prints the same without a display, and `mvedsuad stats --watch` again and again";
    Problem::new(Code::Usage, "showing the display in this terminal", e.to_string(), remedy)
}

fn stopped() -> Problem {
    let remedy = "start it again; nothing has changed for any process";
    Problem::new(Code::Unreachable, "asking the daemon again and again", "the thread that asks has ended", remedy)
}
