//! How a node's answers continue after its connection broke: without repeating an answer, and without hiding a gap.
//!
//! All flows of one packet have the same time, so asking for everything after the last time would leave out siblings of the
//! last answer. The node is asked from that time on, including it, and answers already handed out are skipped. If the last
//! one doesn't come again, the node no longer has it, nor perhaps what followed it. Neighbour: `fan.rs` asks.

use prost_types::Timestamp;
use sinew_api::proto::flow::LostEvent;

/// Words of losses that are remembered since the last answer.
const MOST_LOSSES: usize = 64;

/// Where the answers of one node broke off.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// Time of the last answer.
    last: Option<Timestamp>,
    /// Names of the answers of that time; an empty one where the client does not want names.
    handed: Vec<String>,
    /// Losses told behind it.
    losses: Vec<(LostEvent, Option<Timestamp>)>,
    /// What may come again, after a failure and until something has come that is new.
    again: Option<Again>,
}

#[derive(Debug)]
struct Again {
    handed: Vec<String>,
    losses: Vec<(LostEvent, Option<Timestamp>)>,
    /// Whether an answer that was handed out has come again, so that there is no gap.
    joins: bool,
}

/// What an answer is to the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Heard {
    New,
    /// It has been handed out.
    Again,
    /// It is new, and between `first` and it others may be missing.
    BehindGap {
        first: Timestamp,
    },
}

impl Resume {
    /// Begins anew; the time to ask from, if there was an answer.
    pub(super) fn begin(&mut self) -> Option<Timestamp> {
        let (handed, losses) = (self.handed.clone(), self.losses.clone());
        // Where nothing was handed out there is nothing that a gap could be behind.
        let joins = self.last.is_none();
        self.again = (!joins || !losses.is_empty()).then_some(Again { handed, losses, joins });
        self.last
    }

    /// The next answer of the node.
    pub(super) fn hear(&mut self, id: &str, time: Option<&Timestamp>, loss: Option<&LostEvent>) -> Heard {
        if let Some(loss) = loss {
            return self.hear_loss(*loss, time.copied());
        }
        let at_last = time.is_some() && time == self.last.as_ref();
        let mut heard = Heard::New;
        if let Some(again) = &mut self.again {
            let known = if at_last { again.handed.iter().position(|handed| handed == id) } else { None };
            if let Some(known) = known {
                again.handed.swap_remove(known);
                again.joins = true;
                return Heard::Again;
            }
            match self.last {
                Some(first) if !again.joins => heard = Heard::BehindGap { first },
                _ => {}
            }
            // It is told once; siblings of the last one may still come.
            again.joins = true;
            if !at_last {
                self.again = None;
            }
        }
        if at_last {
            self.handed.push(id.to_owned());
            return heard;
        }
        self.last = time.copied().or(self.last);
        self.losses.clear();
        // In place of the first of before: most times have one name, and there are many times.
        self.handed.truncate(1);
        match self.handed.first_mut() {
            Some(name) => id.clone_into(name),
            None => self.handed.push(id.to_owned()),
        }
        heard
    }

    fn hear_loss(&mut self, loss: LostEvent, time: Option<Timestamp>) -> Heard {
        if let Some(again) = &mut self.again
            && let Some(known) = again.losses.iter().position(|known| *known == (loss, time))
        {
            again.losses.swap_remove(known);
            return Heard::Again;
        }
        if self.losses.len() < MOST_LOSSES {
            self.losses.push((loss, time));
        }
        Heard::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    /// Hears answers `(name, second)`; `!` for one that is passed over, `~` in front of one behind a gap.
    fn hear(resume: &mut Resume, answers: &[(&str, i64)]) -> String {
        let said = answers.iter().map(|(id, at)| match resume.hear(id, Some(&second(*at)), None) {
            Heard::New => format!("{id}{at}"),
            Heard::Again => "!".to_owned(),
            Heard::BehindGap { first } => format!("~{}-{id}{at}", first.seconds),
        });
        said.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn siblings_of_the_last_answer_are_not_lost_and_none_comes_twice() {
        let mut resume = Resume::default();
        assert_eq!(resume.begin(), None);
        assert_eq!(hear(&mut resume, &[("a", 1), ("b", 2), ("c", 2)]), "a1 b2 c2");
        assert_eq!(resume.begin(), Some(second(2)));
        assert_eq!(hear(&mut resume, &[("b", 2), ("c", 2), ("d", 2), ("e", 3)]), "! ! d2 e3");
        assert_eq!(resume.begin(), Some(second(3)));
        assert_eq!(hear(&mut resume, &[("e", 3), ("f", 4), ("e", 4)]), "! f4 e4");
    }

    /// A client whose mask leaves names out.
    #[test]
    fn without_names_as_many_are_passed_over_as_were_handed_out() {
        let mut resume = Resume::default();
        assert_eq!(hear(&mut resume, &[("", 2), ("", 2)]), "2 2");
        resume.begin();
        assert_eq!(hear(&mut resume, &[("", 2), ("", 2), ("", 2), ("", 3)]), "! ! 2 3");
    }

    #[test]
    fn a_gap_is_told_once_and_only_where_there_is_one() {
        let mut resume = Resume::default();
        assert_eq!(hear(&mut resume, &[("a", 1)]), "a1");
        resume.begin();
        assert_eq!(hear(&mut resume, &[("k", 7), ("l", 8)]), "~1-k7 l8", "it has rolled over, or begun anew");
        resume.begin();
        assert_eq!(hear(&mut resume, &[]), "");
        resume.begin();
        assert_eq!(hear(&mut resume, &[("l", 8), ("m", 9)]), "! m9", "two failures are no gap");
        resume.begin();
        assert_eq!(hear(&mut resume, &[("n", 9)]), "~9-n9", "a sibling of what was forgotten");
    }

    #[test]
    fn losses_are_told_once() {
        let lost = |count| LostEvent { num_events_lost: count, ..LostEvent::default() };
        let mut resume = Resume::default();
        resume.hear("a", Some(&second(1)), None);
        assert_eq!(resume.hear("", Some(&second(5)), Some(&lost(3))), Heard::New);
        assert_eq!(resume.begin(), Some(second(1)), "its time is the journal's, not a flow's");
        assert_eq!(hear(&mut resume, &[("a", 1)]), "!");
        assert_eq!(resume.hear("", Some(&second(5)), Some(&lost(3))), Heard::Again);
        assert_eq!(resume.hear("", Some(&second(5)), Some(&lost(3))), Heard::New, "another one");

        let mut resume = Resume::default();
        resume.hear("", Some(&second(5)), Some(&lost(3)));
        assert_eq!(resume.begin(), None);
        assert_eq!(resume.hear("", Some(&second(5)), Some(&lost(3))), Heard::Again, "before any flow, too");
        assert_eq!(hear(&mut resume, &[("a", 6)]), "a6", "and no gap");
    }
}
