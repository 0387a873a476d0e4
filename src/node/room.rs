//! A room as its task sees it: stepped until it is told to stop or meets a fatal error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::engine::Progress;
use crate::bins::PartitionId;
use crate::compact::{Compactor, Followed};
use crate::error::{Kind, Result};
use crate::fold::{self, Fold};
use crate::http::{Cause, Health};
use crate::intake::Intake;
use crate::intake::inbox::Inbox;
use crate::log::Membership;
use crate::recover::{self, Source};

/// The first pause after a failed step; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two tries of a step.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long after a failure, beside the pause, a room must have gone on before the failure counts as over.
const CALM: Duration = Duration::from_secs(1);
/// How long an actor waits for news before it looks anyway.
const IDLE: Duration = Duration::from_secs(1);

pub(super) enum Room {
    Intake(Intake),
    Inbox(Inbox),
    Fold(Folding),
    Compactor { compactor: Compactor, followed: watch::Sender<Followed> },
}

/// The fold of one partition; `fold` is `None` until it has started.
pub(super) struct Folding {
    pub partition: PartitionId,
    pub parts: fold::Parts,
    pub fold: Option<Fold>,
    pub progress: Arc<Progress>,
    pub membership: Option<Arc<dyn Membership>>,
    /// The last checkpoint that the group was told of.
    pub told: u64,
}

impl Folding {
    async fn step(&mut self) -> Result<bool> {
        // A fold whose step failed starts again from its stored state: that is the one way it is sure of.
        let mut running = match self.fold.take() {
            Some(fold) => fold,
            None => {
                self.parts.state.reopen_if_broken()?;
                recover::fold(self.parts.clone(), self.partition, Source::Local).await?
            }
        };
        let worked = running.step().await?;
        self.progress.fold_at(self.partition, running.position());
        if let (Some(membership), Some((n, offset))) = (&self.membership, running.published())
            && n > self.told
        {
            membership.tell(self.partition, offset, n);
            self.told = n;
        }
        self.fold = Some(running);
        Ok(worked)
    }
}

impl Room {
    async fn step(&mut self) -> Result<bool> {
        match self {
            Room::Intake(intake) => intake.step().await,
            Room::Inbox(inbox) => inbox.step().await,
            Room::Fold(folding) => folding.step().await,
            Room::Compactor { compactor, followed } => {
                let worked = compactor.step().await?;
                let is = compactor.followed();
                followed.send_if_modified(|was| std::mem::replace(was, is) != is);
                Ok(worked)
            }
        }
    }

    async fn ready(&mut self) -> Result<()> {
        match self {
            Room::Intake(intake) => intake.ready().await,
            Room::Inbox(inbox) => inbox.ready().await,
            Room::Fold(Folding { fold: Some(fold), .. }) => fold.ready().await,
            Room::Fold(_) => Ok(()),
            Room::Compactor { compactor, .. } => compactor.ready().await,
        }
    }

    /// Its name in the log, and its number among the reasons of [`Health`].
    pub fn name(&self) -> (String, usize) {
        match self {
            Room::Intake(_) => ("intake".into(), 0),
            Room::Compactor { .. } => ("compactor".into(), 1),
            Room::Inbox(_) => ("inbox".into(), 2),
            Room::Fold(folding) => (format!("fold {}", folding.partition), 3 + usize::from(folding.partition)),
        }
    }

    fn idle(&self) -> Duration {
        match self {
            Room::Compactor { compactor, .. } => Duration::from_millis(compactor.due_in_ms()),
            _ => IDLE,
        }
    }
}

/// Steps a room until it is told to stop or meets a fatal error.
pub(super) async fn drive(mut room: Room, stop: CancellationToken, health: Arc<Health>) -> Result<()> {
    let (name, number) = room.name();
    let mut pause = MIN_PAUSE;
    // The last failure, while it is too recent to be over: a room that starts again succeeds before it fails again.
    let mut failed: Option<Instant> = None;
    let ended = loop {
        if stop.is_cancelled() {
            break Ok(());
        }
        let stepped = room.step().await;
        if failed.is_some_and(|at| at.elapsed() > CALM + pause) {
            health.clear(Cause::Room(number));
            (failed, pause) = (None, MIN_PAUSE);
        }
        let waited: Result<()> = match stepped {
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {
                let idle = room.idle();
                tokio::select! {
                    () = stop.cancelled() => break Ok(()),
                    ready = room.ready() => ready,
                    () = tokio::time::sleep(idle) => Ok(()),
                }
            }
            Err(e) => Err(e),
        };
        let Err(e) = waited else { continue };
        if e.is_fatal() {
            break Err(e);
        }
        // One append without an answer is nothing to speak of.
        if e.kind != Kind::Indeterminate || failed.is_some() {
            tracing::warn!(room = name, kind = %e.kind, error = %e, "tries again");
            health.set(Cause::Room(number), format!("{name}: {e}"));
        }
        failed = Some(Instant::now());
        let jitter = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            () = tokio::time::sleep(jitter) => {}
        }
        pause = (pause * 2).min(MAX_PAUSE);
    };
    health.clear(Cause::Room(number));
    ended
}
