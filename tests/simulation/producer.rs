//! Producers: they send batches, lose patience, try again elsewhere with the same id, some with a basis and some
//! without, give one id to two contents now and then, and keep the rules that the design asks of them.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::LocalBoxFuture;
use tuflog::change::{Batch, Change};
use tuflog::error::{Error, Kind, Result};
use tuflog::intake::{Handle, Known, Receipt};

use crate::dice::Dice;
use crate::replay::{Changes, Replay, sha256};

/// Where a producer's basis comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Habit {
    /// Looks its id up before the first attempt.
    Careful,
    /// Sends the first basis that an answer brings.
    Returns,
    /// Never sends any, and so may not try for ever.
    Without,
}

enum Attempt {
    Lookup(LocalBoxFuture<'static, Result<Known>>),
    Submit(LocalBoxFuture<'static, Result<Receipt>>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Answer {
    Accepted(u64),
    Conflict,
    /// Not knowing what became of it.
    GaveUp,
}

pub struct Producer {
    pub id: String,
    pub digest: String,
    changes: Arc<Vec<Change>>,
    pub habit: Habit,
    basis: Option<u64>,
    /// Where the ledger ended, and the horizon, when its id was sent first.
    first: Option<(u64, u64)>,
    attempt: Option<(Attempt, bool)>,
    patience: u64,
    next: u64,
    pub answer: Option<Answer>,
}

/// The text of a change as it stands in a segment, by the documented form.
fn line(path: &str, target: &Option<String>) -> String {
    match target {
        Some(target) => format!("{},\"op\":\"add\",\"path\":\"{path}\"}}\n", &target[..target.len() - 1]),
        None => format!("{{\"op\":\"remove\",\"path\":\"{path}\"}}\n"),
    }
}

fn change(path: &str, target: &Option<String>) -> Change {
    let text = line(path, target);
    Change::from_line(&text.trim_end().to_owned().into()).expect("producers write valid changes")
}

/// Some changes; few paths and few values, so that they meet and undo each other.
pub fn changes(dice: &Dice, paths: u64, values: u64) -> Changes {
    let one = |_| {
        let path = format!("p/{}", dice.below(paths));
        if dice.pct(30) {
            return (path, None);
        }
        let value = dice.below(values);
        let custom = if value % 3 == 1 { format!("\"custom\":{{\"v\":{value}}},") } else { String::new() };
        let hash = sha256(&value.to_be_bytes());
        (path, Some(format!("{{{custom}\"hashes\":{{\"sha256\":\"{hash}\"}},\"length\":{value}}}")))
    };
    (0..1 + dice.below(6)).map(one).collect()
}

/// The digest of a batch's content: of its lines by rising place, the first 8 bytes of the path's digest.
pub fn digest_of(content: &Changes) -> String {
    let place = |path: &str| sha256(path.as_bytes())[..16].to_owned();
    let mut lines: Vec<_> = content.iter().map(|(path, target)| (place(path), line(path, target))).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    sha256(lines.into_iter().map(|(_, line)| line).collect::<String>().as_bytes())
}

impl Producer {
    pub fn new(id: String, content: Changes, habit: Habit, replay: &mut Replay) -> Producer {
        let digest = digest_of(&content);
        let changes = Arc::new(content.iter().map(|(path, target)| change(path, target)).collect());
        replay.written.insert((id.clone(), digest.clone()), content);
        let (basis, first, attempt, patience, next, answer) = (None, None, None, 0, 0, None);
        Producer { id, digest, changes, habit, basis, first, attempt, patience, next, answer }
    }

    /// The same producer gives its id to other content, knowing what it knows.
    pub fn twin(&self, content: Changes, replay: &mut Replay) -> Producer {
        let mut twin = Producer::new(self.id.clone(), content, self.habit, replay);
        (twin.basis, twin.first) = (self.basis, self.first);
        twin
    }

    pub fn has_tried(&self) -> bool {
        self.first.is_some()
    }

    /// Without a basis nothing may be accepted once the ledger has grown by the horizon since the first attempt.
    fn too_late(&self, replay: &Replay) -> bool {
        self.first.is_some_and(|(end, horizon)| replay.next - end >= horizon)
    }

    /// Called before an intake may take messages: takes back what it must not accept any more.
    pub fn withdraw(&mut self, replay: &Replay) {
        if let Some((Attempt::Submit(_), false)) = &self.attempt
            && self.too_late(replay)
        {
            self.attempt = None;
        }
    }

    /// One look at what came back; a new attempt when it is time.
    pub fn tick(&mut self, dice: &Dice, replay: &Replay, handles: &[Option<Handle>]) {
        if self.answer.is_some() {
            return;
        }
        self.withdraw(replay);
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        match &mut self.attempt {
            Some((Attempt::Lookup(lookup), _)) => match lookup.as_mut().poll(&mut context) {
                Poll::Pending => self.lose_patience(dice),
                Poll::Ready(known) => {
                    self.attempt = None;
                    if let Ok(Known { seen: None, basis, .. }) = known {
                        self.basis = Some(basis);
                    }
                }
            },
            Some((Attempt::Submit(submit), _)) => match submit.as_mut().poll(&mut context) {
                Poll::Pending => self.lose_patience(dice),
                Poll::Ready(answer) => {
                    dice.trace(|| format!("producer {}: {answer:?}", self.id));
                    self.attempt = None;
                    self.next = dice.step() + dice.below(60);
                    self.hear(dice, replay, answer);
                }
            },
            None if self.next <= dice.step() => self.try_again(dice, replay, handles),
            None => {}
        }
    }

    fn lose_patience(&mut self, dice: &Dice) {
        if self.patience <= dice.step() {
            dice.hit("producers lost patience");
            self.attempt = None;
            self.next = dice.step();
        }
    }

    fn try_again(&mut self, dice: &Dice, replay: &Replay, handles: &[Option<Handle>]) {
        if self.basis.is_none() && self.too_late(replay) {
            return match self.habit {
                Habit::Without => {
                    dice.hit("producers gave up");
                    self.answer = Some(Answer::GaveUp);
                }
                _ => self.ask_history(dice, replay),
            };
        }
        let Some(handle) = dice.of(handles) else { return self.next = dice.step() + 5 };
        self.patience = dice.step() + 15 + dice.below(100);
        if self.habit == Habit::Careful && self.basis.is_none() && self.first.is_none() {
            let id = self.id.clone();
            let lookup = Box::pin(async move { handle.lookup(&id).await });
            self.attempt = Some((Attempt::Lookup(lookup), true));
            return;
        }
        let basis = self.basis.filter(|_| self.habit != Habit::Without);
        let batch = Batch::new(self.id.clone(), basis, self.changes.to_vec()).expect("valid");
        assert_eq!(hex::encode(batch.digest), self.digest, "the digest is that of the change lines");
        if self.first.is_none() {
            self.first = Some((replay.next, replay.horizon()));
        } else {
            dice.hit(if basis.is_some() { "retries with a basis" } else { "retries without a basis" });
        }
        dice.trace(|| format!("producer {} sends with basis {basis:?}, first {:?}", self.id, self.first));
        let mut submit: LocalBoxFuture<'static, _> = Box::pin(async move { handle.submit(batch).await });
        // The first poll hands it over; the answer comes later.
        let first = submit.as_mut().poll(&mut Context::from_waker(futures::task::noop_waker_ref()));
        match first {
            Poll::Pending => self.attempt = Some((Attempt::Submit(submit), basis.is_some())),
            Poll::Ready(answer) => self.hear(dice, replay, answer),
        }
    }

    fn hear(&mut self, dice: &Dice, replay: &Replay, answer: Result<Receipt>) {
        let known = replay.ids.get(&self.id);
        match answer {
            Ok(receipt) => {
                dice.hit("acknowledged");
                if known != Some(&(receipt.seq, self.digest.clone())) {
                    dice.fail(format!(
                        "batch {} was acknowledged at {}, the ledger says {known:?}",
                        self.id, receipt.seq
                    ));
                }
                self.answer = Some(Answer::Accepted(receipt.seq));
            }
            Err(Error { kind: Kind::Conflict, .. }) => {
                dice.hit("refused as a conflict");
                if known.is_none_or(|(_, digest)| *digest == self.digest) {
                    dice.fail(format!("batch {} was refused as a conflict, the ledger says {known:?}", self.id));
                }
                self.answer = Some(Answer::Conflict);
            }
            Err(Error { kind: Kind::Unavailable | Kind::Indeterminate, basis, message, .. }) => {
                let beyond = message.contains("horizon");
                if message.contains("full") {
                    dice.hit("intake full");
                }
                if beyond {
                    dice.hit("beyond the horizon");
                }
                if self.habit != Habit::Without
                    && let Some(basis) = basis
                {
                    self.basis = Some(basis);
                } else if beyond && self.habit != Habit::Without {
                    self.ask_history(dice, replay);
                } else if beyond {
                    dice.hit("producers gave up");
                    self.answer = Some(Answer::GaveUp);
                }
            }
            Err(e) => dice.fail(format!("batch {} was refused as {}: {e}", self.id, e.kind)),
        }
    }

    /// A lookup in the whole history, which the checker can answer.
    fn ask_history(&mut self, dice: &Dice, replay: &Replay) {
        dice.hit("looked up in the whole history");
        match replay.ids.get(&self.id) {
            Some((seq, digest)) if *digest == self.digest => self.answer = Some(Answer::Accepted(*seq)),
            Some(_) => self.answer = Some(Answer::Conflict),
            None => self.basis = Some(replay.next.saturating_sub(1)),
        }
    }
}
