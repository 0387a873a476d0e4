//! Targets by pattern: every bin of a view is looked at, in order.

use futures::{StreamExt, stream};
use globset::{GlobBuilder, GlobMatcher};
use memchr::memmem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::at::At;
use super::targets::Entry;
use super::{EntryAnswer, Query};
use crate::bins::Bin;
use crate::change::check_path;
use crate::error::{Error, Result};

/// How many bins are read at a time.
const READ_AHEAD: usize = 8;
/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// A part of a pattern without wildcards is looked for in a bin's bytes first, if it has so many.
const MIN_LITERAL_BYTES: usize = 3;

/// A pattern of paths: `*` is any number of characters, `/` too; `?` one; `[a-z]` one of these; `{a,b}` either. A text
/// without any of them is looked for anywhere in the path.
#[derive(Clone, Debug)]
pub struct Pattern {
    matcher: GlobMatcher,
    /// What every path that matches holds.
    literal: String,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// `Invalid`, of field `glob`.
    pub fn new(text: &str) -> Result<Pattern> {
        let wrong = |why: String| Error::invalid("glob", why);
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(wrong(format!("must have 1 to {MAX_PATTERN_BYTES} bytes, has {}", text.len())));
        }
        let special = |c: char| "*?[]{}\\".contains(c);
        let glob = if text.contains(special) { single_stars(text) } else { format!("*{text}*") };
        let built = GlobBuilder::new(&glob).literal_separator(false).build();
        let matcher = built.map_err(|e| wrong(e.kind().to_string()))?.compile_matcher();
        // What stands in brackets or braces is one of several, so it is only looked for where there are none.
        let plain = !text.contains(|c| "[]{}\\".contains(c));
        let literal =
            text.split(special).max_by_key(|part| part.len()).filter(|_| plain).unwrap_or_default().to_owned();
        Ok(Pattern { matcher, literal })
    }

    /// Whether a path is one of them.
    pub fn matches(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }

    /// False if no path in these bytes can match.
    pub(super) fn may_be_in(&self, bytes: &[u8]) -> bool {
        self.literal.len() < MIN_LITERAL_BYTES || memmem::find(bytes, self.literal.as_bytes()).is_some()
    }
}

/// The pattern with one `*` for several in a row: two have another meaning for globset, which knows of folders.
fn single_stars(text: &str) -> String {
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars().peekable());
    let mut class = false;
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '[' if !class => {
                class = true;
                // A `]` that stands first is one of the characters.
                out.extend(chars.next_if(|c| "!^".contains(*c)));
                out.extend(chars.next_if_eq(&']'));
            }
            ']' => class = false,
            '*' if !class => while chars.next_if_eq(&'*').is_some() {},
            _ => {}
        }
    }
    out
}

/// The targets that match a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct SearchAnswer {
    /// The checkpoint that was looked at.
    pub checkpoint: u64,
    /// By rising bin, in a bin by path.
    pub targets: Vec<FoundTarget>,
    /// What to ask for as `after` to get the next ones; absent when these are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A target that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct FoundTarget {
    /// The path.
    pub path: String,
    /// The role that lists it.
    pub bin: String,
    /// What stands there.
    #[serde(flatten)]
    pub target: EntryAnswer,
}

impl Query {
    /// The targets that match a pattern, published now or at a point in history: at most `limit`, those behind the path
    /// `after`.
    pub async fn find_targets(
        &self,
        pattern: &Pattern,
        at: Option<At>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<SearchAnswer> {
        let Some(view) = self.view(at).await? else {
            return Ok(SearchAnswer { checkpoint: 0, targets: vec![], after: None });
        };
        after.map_or(Ok(()), check_path)?;
        let first = after.map_or(0, |path| view.layout.bin_of(path));
        let bins = stream::iter(first..view.layout.bins()).map(|bin: Bin| {
            let (view, pattern) = (view.clone(), pattern.clone());
            let after = after.filter(|_| bin == first).map(str::to_owned);
            async move {
                let stored = self.stored_bin(&view, bin).await?;
                let find = move || -> Result<Vec<FoundTarget>> {
                    if !pattern.may_be_in(&stored.bytes) {
                        return Ok(vec![]);
                    }
                    let role = view.layout.name(bin);
                    view.open(&stored, |parsed| {
                        let behind = |path: &str| after.as_deref().is_none_or(|after| path > after);
                        let wanted = parsed.targets.iter().filter(|(path, _)| behind(path) && pattern.matches(path));
                        let found = wanted.take(limit + 1).map(|(path, fragment)| {
                            let target = Entry::parse(path, fragment)?.into();
                            Ok(FoundTarget { path: path.to_string(), bin: role.clone(), target })
                        });
                        found.collect()
                    })
                };
                self.pool.run(find).await
            }
        });
        let mut bins = std::pin::pin!(bins.buffered(READ_AHEAD));
        let mut targets: Vec<FoundTarget> = Vec::new();
        while targets.len() <= limit
            && let Some(found) = bins.next().await
        {
            targets.extend(found?);
        }
        let more = targets.len() > limit;
        targets.truncate(limit);
        let after = targets.last().filter(|_| more).map(|last| last.path.clone());
        Ok(SearchAnswer { checkpoint: view.n, targets, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_wildcards_is_looked_for_anywhere() {
        let matches = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().matches(path);
        assert!(matches("hello", "pool/h/hello_2.10.deb") && matches("*.deb", "pool/h/hello_2.10.deb"));
        assert!(matches("pool/*/hello?2*", "pool/x/y/hello_2.10.deb") && matches("{a,b}/[x-z]", "b/y"));
        assert!(!matches("hello", "pool/hullo") && !matches("*.deb", "a.debx") && !matches("a?", "a"));
        // Only what has a wildcard must match as a whole; two stars are one.
        assert!(
            matches("a,1", "x/a,1.deb")
                && matches("wow!", "wow!/x")
                && matches("**/x", "a/x")
                && matches("a**", "ab/c")
        );
        assert!(!matches("**/x", "x") && matches("[**]", "*") && matches("[]*]x", "]x") && matches("\\**y", "*xy"));
        for bad in ["", "[", "{a", &"x".repeat(1_025)] {
            assert_eq!(Pattern::new(bad).unwrap_err().field.as_deref(), Some("glob"), "{bad}");
        }
    }

    #[test]
    fn only_what_every_match_holds_is_looked_for_in_the_bytes() {
        let may = |pattern: &str, bytes: &str| Pattern::new(pattern).unwrap().may_be_in(bytes.as_bytes());
        assert!(may("hello", "xhellox") && !may("hello", "hell") && !may("*hello*.deb", "goodbye.deb"));
        assert!(may("a,bcd", "xa,bcd") && !may("**/abc", "abc") && may("**/abc", "x/abc"));
        assert!(may("{foo,bar}", "bar") && may("[abc]defg", "nothing") && may("a*b", "nothing"));
    }
}
