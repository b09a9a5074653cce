//! Looks at the whole store that somebody waits for, such as `sinew policy wait`: it wants to know of what stands there
//! now, and not of what has been told so far.

use tokio::sync::oneshot;

/// Looks that were asked for, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Looks {
    asked: u64,
    done: u64,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Looks {
    /// Somebody waits for a look that begins from now on: its number.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<()>) -> u64 {
        self.asked += 1;
        self.waiting.push((self.asked, reply));
        self.asked
    }

    /// What the look of this number found, and all before it, has been taken in.
    pub(super) fn finish(&mut self, number: u64) {
        self.done = number;
    }

    /// Answers whoever waited for a look that is done. What it found is in the view by now.
    pub(super) fn answer(&mut self) {
        let done = self.done;
        for (_, reply) in self.waiting.extract_if(.., |(look, _)| *look <= done) {
            // Whoever asked may have gone away.
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_answers_those_who_asked_before_it_began() {
        let mut looks = Looks::default();
        let ((first, mut one), (second, mut other)) = (oneshot::channel(), oneshot::channel());
        let number = looks.ask(first);
        looks.ask(second);
        looks.answer();
        assert!(one.try_recv().is_err(), "nothing is done yet");
        looks.finish(number);
        looks.answer();
        assert!(one.try_recv().is_ok() && other.try_recv().is_err());
        looks.finish(number + 1);
        looks.answer();
        assert!(other.try_recv().is_ok());
    }
}
