//! One node's part of a request: the node is asked, and after a failure asked again if the request follows, with growing
//! pauses and from where its answers broke off ([`Resume`]); at once if it is reached elsewhere now. Neighbours: [`super`]
//! starts tasks, says where their nodes are, and receives their answers.

use std::pin::pin;
use std::time::SystemTime;

use futures_util::StreamExt;
use prost_types::Timestamp;
use sinew_api::proto::flow::{LostEvent, LostEventSource};
use sinew_api::proto::relay::NodeState;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::Channel;

use crate::dial;
use crate::relay::RelaySettings;
use crate::relay::clock::{self, Off};
use crate::relay::node::{FIRST_PAUSE, LONGEST_PAUSE, state_of};
use crate::relay::question::Question;
use crate::relay::resume::{Heard, Resume};

/// Answers that one node's task hands over at a time: handing them over costs as much for one as for all of them.
const BUNCH: usize = 32;

/// What a node's task tells.
pub(super) enum Told<A> {
    /// In the order in which they came.
    Answers(Vec<A>),
    State(NodeState, String),
    /// How far the clock of the node is off, if it is.
    Clock(Option<Off>),
    /// Nothing more comes.
    End,
}

/// Asks one node until the answer ends, or until the node is gone.
pub(super) struct NodeTask<Q: Question> {
    /// How the node is reached; closed once it is gone.
    pub(super) channel: watch::Receiver<Result<Channel, Status>>,
    pub(super) node: String,
    pub(super) question: Q,
    pub(super) sender: mpsc::Sender<Told<Q::Answer>>,
    pub(super) settings: RelaySettings,
    pub(super) resume: Resume,
    /// What the node's clock was when it first began to answer, if it tells that.
    pub(super) began: Option<Timestamp>,
}

impl<Q: Question> NodeTask<Q> {
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(status) = self.once(&mut pause).await else { break };
            let is_gone = self.channel.has_changed().is_err();
            if is_gone {
                break;
            }
            let state = state_of(&status);
            let reported = self.sender.send(Told::State(state, dial::reason(&status))).await;
            if reported.is_err() || !self.question.follows() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                changed = self.channel.changed() => match changed {
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(_) => break,
                },
            }
        }
        // Nobody is left to hear it only if the stream was dropped.
        let _ = self.sender.send(Told::End).await;
    }

    /// One connection's worth of answers.
    async fn once(&mut self, pause: &mut std::time::Duration) -> Result<(), Status> {
        let channel = self.channel.borrow_and_update().clone()?;
        let patience = self.settings.patience;
        let too_late = |_| Status::deadline_exceeded(format!("no answer in {} s", patience.as_secs()));
        // Asked again after a failure, the node begins with its last answer, which shows that it still has what follows.
        let question = match (self.resume.begin(), self.began) {
            (Some(last), _) => self.question.since(last),
            // It has given nothing yet: what has come since it was first asked is still new. By its own clock: by ours a
            // node whose clock is behind would say nothing for long.
            (None, Some(began)) if self.question.wants_only_new() => self.question.since(began),
            (None, _) => self.question.clone(),
        };
        let asked = SystemTime::now();
        let answer = tokio::select! {
            answer = tokio::time::timeout(patience, question.ask(channel)) => answer.map_err(too_late)??,
            _ = self.channel.changed() => return Err(self.elsewhere()),
        };
        *pause = FIRST_PAUSE;
        let off = Off::of(answer.metadata(), asked, SystemTime::now());
        self.began = self.began.or_else(|| clock::written(answer.metadata()));
        for told in [Told::State(NodeState::NodeConnected, String::new()), Told::Clock(off)] {
            if self.sender.send(told).await.is_err() {
                return Ok(());
            }
        }
        let mut bunches = pin!(answer.into_inner().ready_chunks(BUNCH));
        loop {
            // An answer to what is past must go on; one that follows may be quiet, and keep-alive finds a dead node.
            let bunch = if self.question.follows() {
                tokio::select! {
                    bunch = bunches.next() => bunch,
                    _ = self.channel.changed() => return Err(self.elsewhere()),
                }
            } else {
                tokio::time::timeout(patience, bunches.next()).await.map_err(too_late)?
            };
            match bunch {
                Some(bunch) => {
                    let (answers, failure) = self.hear(bunch);
                    if !answers.is_empty() && self.sender.send(Told::Answers(answers)).await.is_err() {
                        return Ok(());
                    }
                    failure.map_or(Ok(()), Err)?;
                }
                None if self.question.has_end() => return Ok(()),
                None => return Err(Status::unavailable("it ended its answer")),
            }
        }
    }

    /// Why a node that answered well is asked again, and at once: the change is left to be seen by who waits.
    fn elsewhere(&mut self) -> Status {
        self.channel.mark_changed();
        Status::unavailable("its address has changed")
    }

    /// What is new of answers that came together, gaps included, up to a failure.
    fn hear(&mut self, bunch: Vec<Result<Q::Answer, Status>>) -> (Vec<Q::Answer>, Option<Status>) {
        let mut answers = Vec::with_capacity(bunch.len());
        for answer in bunch {
            let answer = match answer {
                Ok(answer) => answer,
                Err(status) => return (answers, Some(status)),
            };
            match self.resume.hear(Q::id(&answer), Q::time(&answer), Q::loss(&answer)) {
                Heard::Again => continue,
                Heard::BehindGap { first } => {
                    answers.extend(Q::gap(&self.node, gap(first, Q::time(&answer).copied())));
                }
                Heard::New => {}
            }
            answers.push(answer);
        }
        (answers, None)
    }
}

/// A notice of answers that the node no longer has. Their number is unknown.
fn gap(first: Timestamp, last: Option<Timestamp>) -> LostEvent {
    let source = LostEventSource::HubbleRingBuffer.into();
    LostEvent { source, num_events_lost: 0, cpu: None, first: Some(first), last: last.or(Some(first)) }
}
