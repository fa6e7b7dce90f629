//! Tracer threads: each drives the processes of one version, for as long as there are any.
//!
//! ptrace requests are valid only from the thread that attached, so a version keeps its thread. Everything arrives there in one
//! place: stops of the tracees, orders, and the ringing of whoever has something new for it. Nothing polls.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use crate::ptrace::wait::{Bell, Inbox, Stop, Wake};
use crate::ptrace::{Error, Result, Tid};

/// What a tracer thread drives.
pub(crate) trait Driven {
    /// What it is told.
    type Order: Send + 'static;
    /// How long it waits for an order when it has no tracees, before it looks at what else there is; nothing where orders are all
    /// that it waits for then.
    const IDLE: Option<Duration>;

    fn inbox(&self) -> &Inbox;
    fn on_stop(&mut self, tid: Tid, stop: Stop);
    /// Somebody rang.
    fn on_bell(&mut self);
    fn on_order(&mut self, order: Self::Order);
    /// Says whether there is nothing more to do.
    fn is_over(&mut self, tracees: Tracees) -> bool;
}

/// Whether the thread has tracees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracees {
    Perhaps,
    None,
}

/// The loop of a tracer thread. It ends when there is nothing more to do, and when nobody is left who could give an order.
///
/// # Errors
///
/// When waiting for the tracees fails.
pub(crate) fn drive<D: Driven>(driven: &mut D, orders: &Receiver<D::Order>) -> Result<()> {
    loop {
        let mut tracees = Tracees::Perhaps;
        match driven.inbox().wait()? {
            Wake::Stop(tid, stop) => driven.on_stop(tid, stop),
            Wake::Bell => {
                loop {
                    match orders.try_recv() {
                        Ok(order) => driven.on_order(order),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => return Ok(()),
                    }
                }
                driven.on_bell();
            }
            Wake::NoTracees => {
                tracees = Tracees::None;
                let order = match D::IDLE {
                    Some(idle) => orders.recv_timeout(idle),
                    None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match order {
                    Ok(order) => driven.on_order(order),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if D::IDLE.is_some() {
                    driven.on_bell();
                }
            }
        }
        if driven.is_over(tracees) {
            return Ok(());
        }
    }
}

/// A tracer thread, and the way to reach it.
#[derive(Debug)]
pub(crate) struct Handle<O> {
    pub(crate) bell: Arc<Bell>,
    orders: Sender<O>,
    join: JoinHandle<()>,
}

impl<O: Send + 'static> Handle<O> {
    /// Starts a tracer thread; `name` is what `ps -L` shows. `work` gets its inbox and its orders.
    pub(crate) fn spawn(name: &str, work: impl FnOnce(Inbox, Receiver<O>) + Send + 'static) -> Result<Handle<O>> {
        let (orders, received) = unbounded();
        let (ready, bell) = unbounded();
        let join = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let inbox = Inbox::new();
                if ready.send(inbox.bell()).is_ok() {
                    work(inbox, received);
                }
            })
            .map_err(|source| Error::Own { doing: format!("starting thread {name}"), source })?;
        let bell = bell.recv().map_err(|_| Error::Unsupported(format!("thread {name} ended at its start")))?;
        Ok(Handle { bell, orders, join })
    }

    /// Gives an order, and says whether the thread is there to get it.
    pub(crate) fn order(&self, order: O) -> bool {
        let given = self.orders.send(order).is_ok();
        self.bell.ring();
        given
    }

    /// Waits until the thread has nothing more to do.
    pub(crate) fn join(self) {
        // Nobody else could give it an order, and without anybody it would end.
        let Handle { orders: _orders, join, .. } = self;
        joined(join);
    }

    /// Ends the thread: it lets go of its tracees.
    pub(crate) fn end(self) {
        let Handle { bell, orders, join } = self;
        drop(orders);
        bell.ring();
        joined(join);
    }
}

fn joined(join: JoinHandle<()>) {
    let name = join.thread().name().unwrap_or_default().to_owned();
    if join.join().is_err() {
        tracing::error!(thread = name, "a tracer thread panicked; its tracees were let go");
    }
}
