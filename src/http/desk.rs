//! The desk between the gate and `tiny_http`: requests wait here for a connection, and answers come
//! back. All connections exist before the first client.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use log::error;

use super::backend::{Ask, Backend, Reply};
use crate::state::troubles;

/// The requests that wait, and the connections.
pub(super) struct Desk {
    /// A connection that was lost leaves its place empty.
    backends: Vec<Option<Backend>>,
    waiting: VecDeque<Ask>,
}

impl Desk {
    /// A desk with these connections to the server.
    ///
    /// # Errors
    /// When one cannot be used without blocking.
    pub(super) fn new(connections: Vec<UnixStream>) -> io::Result<Self> {
        let backends = connections.into_iter().map(|socket| Backend::new(socket).map(Some));
        Ok(Self { backends: backends.collect::<io::Result<_>>()?, waiting: VecDeque::new() })
    }

    /// The sockets of all connections; their order numbers them.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.backends.iter().flatten().map(|backend| backend.socket.as_fd())
    }

    /// Whether every connection is lost.
    pub(super) fn is_closed(&self) -> bool {
        self.backends.iter().all(Option::is_none)
    }

    /// Adds a request to those that wait.
    pub(super) fn push(&mut self, ask: Ask) {
        self.waiting.push_back(ask);
    }

    /// Gives the requests that wait to idle connections. Returns the answers to those that got a
    /// connection that is lost.
    pub(super) fn pass_on(&mut self) -> Vec<Reply> {
        let mut lost = Vec::new();
        let is_idle = |backend: &Option<Backend>| backend.as_ref().is_some_and(Backend::is_idle);
        while !self.waiting.is_empty() {
            let Some(number) = self.backends.iter().position(is_idle) else { break };
            let (Some(Some(backend)), Some(ask)) = (self.backends.get_mut(number), self.waiting.pop_front())
            else {
                break;
            };
            if let Err(error) = backend.start(ask) {
                lost.extend(self.lose(number, &error));
            }
        }
        lost
    }

    /// Moves connection `number` on. Returns its answer once that is complete.
    pub(super) fn step(&mut self, number: usize) -> Option<Reply> {
        match self.backends.get_mut(number)?.as_mut()?.step() {
            Ok(reply) => reply,
            Err(error) => self.lose(number, &error),
        }
    }

    fn lose(&mut self, number: usize, error: &io::Error) -> Option<Reply> {
        let reply = self.backends.get_mut(number)?.take()?.abandon();
        let left = self.backends.iter().flatten().count();
        error!(error:%, left; "lost a connection to the http server");
        let detail = format!("{left} connections are left, restart: {error}");
        troubles::begin("lost a connection to the http server", "", &detail);
        reply
    }

    /// Forgets the waiting requests of all clients but those that `waits` admits.
    pub(super) fn retain(&mut self, waits: impl Fn(u64) -> bool) {
        self.waiting.retain(|ask| waits(ask.client));
    }

    /// The bytes of all requests here. Those at the routes count to their answer.
    pub(super) fn held(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(|ask| ask.request.len()).sum();
        waiting + self.backends.iter().flatten().map(Backend::held).sum::<usize>()
    }
}
