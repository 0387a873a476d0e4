//! What changed between two checkpoints. Only bins whose versions differ are read, and what is found is handed on bin by
//! bin, so memory follows the largest bins, not the repository.

use std::cmp::Ordering;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::at::At;
use super::search::Pattern;
use super::targets::Entry;
use super::view::View;
use super::{EntryAnswer, Query};
use crate::bins::Bin;
use crate::error::{Error, Result};

/// How many bins are compared at a time.
const READ_AHEAD: usize = 4;

/// What became of a target between two checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiffKind {
    /// It was not there before.
    Added,
    /// It was other before.
    Changed,
    /// It is not there any more.
    Removed,
}

/// A target that differs between two checkpoints: one line of a diff.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct DiffLine {
    /// What became of it.
    pub diff: DiffKind,
    /// Its path.
    pub path: String,
    /// The role that lists it.
    pub bin: String,
    /// What stood there; absent if it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<EntryAnswer>,
    /// What stands there; absent if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EntryAnswer>,
}

/// Two checkpoints to compare.
#[derive(Clone)]
pub struct Diff {
    from: View,
    to: View,
}

impl Diff {
    /// The numbers of the checkpoints.
    pub fn checkpoints(&self) -> (u64, u64) {
        (self.from.n, self.to.n)
    }
}

impl Query {
    /// Two points in history, found.
    ///
    /// # Errors
    /// `Invalid` if there was no checkpoint then.
    pub async fn diff(&self, from: At, to: Option<At>) -> Result<Diff> {
        let nothing = || Error::invalid("at", "nothing is published yet");
        let of = |name: &'static str| move |e: Error| Error { field: e.field.map(|_| name.to_owned()), ..e };
        let from = self.view(Some(from)).await.map_err(of("from"))?.ok_or_else(nothing)?;
        let to = self.view(to).await.map_err(of("to"))?.ok_or_else(nothing)?;
        Ok(Diff { from, to })
    }

    /// What became of each target that differs and matches the pattern, bin by bin; in a bin by path.
    pub fn diff_lines<'a>(
        &'a self,
        diff: &'a Diff,
        pattern: Option<&'a Pattern>,
    ) -> impl Stream<Item = Result<Vec<DiffLine>>> + 'a {
        let compare = move |bin: Bin| async move {
            if diff.from.version(bin)? == diff.to.version(bin)? {
                return Ok(vec![]);
            }
            let (old, new) = (self.stored_bin(&diff.from, bin).await?, self.stored_bin(&diff.to, bin).await?);
            let (diff, pattern, role) = (diff.clone(), pattern.cloned(), diff.from.layout.name(bin));
            let compare = move || {
                diff.from.open(&old, |old| {
                    diff.to.open(&new, |new| compared(&role, &old.targets, &new.targets, pattern.as_ref()))
                })
            };
            self.pool.run(compare).await
        };
        let bins = stream::iter(0..diff.from.layout.bins());
        bins.map(compare).buffered(READ_AHEAD).try_filter(|lines| std::future::ready(!lines.is_empty()))
    }
}

type Targets<'a> = [(std::borrow::Cow<'a, str>, &'a str)];

/// Both are in the order of their paths.
fn compared(bin: &str, old: &Targets, new: &Targets, pattern: Option<&Pattern>) -> Result<Vec<DiffLine>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut lines = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(lines),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        let diff = match (before, after) {
            (Some((_, before)), Some((_, after))) if before == after => continue,
            (Some(_), Some(_)) => DiffKind::Changed,
            (Some(_), None) => DiffKind::Removed,
            _ => DiffKind::Added,
        };
        let Some(path) = before.or(after).map(|(path, _)| path.as_ref()) else { continue };
        if pattern.is_some_and(|pattern| !pattern.matches(path)) {
            continue;
        }
        let entry = |side: Option<&(_, &str)>| side.map(|(_, f)| Entry::parse(path, f).map(Into::into)).transpose();
        let (before, after) = (entry(before)?, entry(after)?);
        lines.push(DiffLine { diff, path: path.to_owned(), bin: bin.to_owned(), before, after });
    }
}
