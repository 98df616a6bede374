//! The poller pool: threads that list upstreams, each one listing at a time.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::farm::events::{Event, PollError, PollFault};
use crate::process::{Interrupt, ProcessError};
use crate::upstream::git::GitError;
use crate::upstream::retry_after;
use crate::upstream::{ListError, Lister};
use crate::upstream_url;

/// Starts `count` pollers that answer the URLs from `requests` with
/// [`Event::PollFinished`]. They end when `requests` is closed.
///
/// # Errors
/// When the system refuses a thread.
pub fn start<M: From<Event> + Send + 'static>(
    count: usize,
    lister: &Arc<Lister>,
    requests: &Receiver<Arc<str>>,
    answers: &Sender<M>,
    interrupt: &Interrupt,
) -> io::Result<()> {
    let start_one = |number| {
        let (lister, requests, answers) = (lister.clone(), requests.clone(), answers.clone());
        let interrupt = interrupt.clone();
        thread::Builder::new().name(format!("poller-{number}")).spawn(move || {
            for upstream in requests {
                let tags = lister.list_tags(&upstream, &interrupt);
                let tags = tags.map_err(|error| PollError {
                    reason: upstream_url::redact(&error.to_string(), &upstream),
                    fault: fault(error),
                });
                // The loop outlives its pollers, unless it failed; then nobody wants the answer.
                let _ = answers.send(Event::PollFinished { upstream, tags }.into());
            }
        })
    };
    (0..count).try_for_each(|number| start_one(number).map(drop))
}

/// What `error` tells about the host.
fn fault(error: ListError) -> PollFault {
    match error {
        ListError::Busy { retry_after, redirected_to, .. } => {
            PollFault::Busy { pause: retry_after, redirected_to }
        }
        ListError::NoAnswer(_) | ListError::Git(GitError::Process(ProcessError::TimedOut { .. })) => {
            PollFault::NoAnswer
        }
        ListError::NoAnswerElsewhere(_) => PollFault::NoAnswerElsewhere,
        ListError::Git(error) if error.is_busy() => {
            PollFault::Busy { pause: retry_after::DEFAULT, redirected_to: None }
        }
        // Of the others it is not known: git says why it failed in words.
        ListError::Git(_) | ListError::Failed(_) | ListError::Interrupted => PollFault::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::smart_http::Failure;

    #[test]
    fn silence_behind_a_redirect_is_told_apart() {
        let reason = || "no answer".to_owned();
        assert_eq!(fault(Failure::NoAnswer(reason()).into()), PollFault::NoAnswer);
        assert_eq!(fault(Failure::NoAnswerElsewhere(reason()).into()), PollFault::NoAnswerElsewhere);
        assert_eq!(fault(Failure::Failed(reason()).into()), PollFault::Other);
    }
}
