//! The uploader thread: runs one upload at a time. It must not decide when.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};

use crate::app::message::Message;
use crate::farm::events::Event;
use crate::process::Interrupt;
use crate::repository::upload::Uploader;

/// Starts the uploader thread. It answers each request with [`Event::UploadFinished`], and ends when
/// `requests` is closed.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(
    uploader: Uploader,
    requests: Receiver<()>,
    answers: Sender<Message>,
    interrupt: Interrupt,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("uploader".into()).spawn(move || {
        for () in requests {
            // This fails only if the loop has panicked.
            let _ = answers.send(Event::UploadFinished(uploader.run(&interrupt)).into());
        }
    })
}
