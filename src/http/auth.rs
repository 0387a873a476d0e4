//! Bearer tokens with scopes.
//!
//! The file has one `TOKEN SCOPES` a line; scopes are `publish`, `read` and `admin` (which includes the others), joined
//! by commas; `#` begins a comment. Tokens are kept and compared as SHA-256 digests, so that how long a comparison
//! takes says nothing about a token.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, header};

use super::failure::{Answer, Failure};
use crate::bins::{Sha256Digest, sha256};
use crate::error::{Error, Result};

/// The shortest token taken, in bytes: shorter ones can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `POST /v1/batches`.
    Publish,
    /// `GET /v1/…` and `/metrics`.
    Read,
    /// Everything.
    Admin,
}

impl Scope {
    fn parse(name: &str) -> Option<Scope> {
        [Scope::Publish, Scope::Read, Scope::Admin].into_iter().find(|s| s.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

/// The tokens of a server. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<RwLock<Vec<Known>>>);

/// The digest of a token, and what it may do.
type Known = (Sha256Digest, Vec<Scope>);

impl Tokens {
    /// Reads a tokens file. `Invalid` if others than its owner can read it, or for a line that is not as the module
    /// says; the message never holds a token.
    pub fn read(file: &Path) -> Result<Tokens> {
        let refuse = |why: String| Error::invalid("auth.tokens_file", format!("{}: {why}", file.display()));
        let meta = std::fs::metadata(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o777;
            return Err(refuse(format!("others can read it (mode {mode:04o}): run chmod 600 on it")));
        }
        let text = std::fs::read_to_string(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
        Tokens::parse(&text).map_err(|e| refuse(e.message))
    }

    /// Parses the text of a tokens file.
    pub fn parse(text: &str) -> Result<Tokens> {
        let mut tokens: Vec<Known> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let refuse = |why: &str| Error::invalid("auth.tokens_file", format!("line {}: {why}", i + 1));
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (token, scopes) = line
                .split_once(char::is_whitespace)
                .ok_or_else(|| refuse("must be TOKEN SCOPES, such as `6f3c…  publish,read`"))?;
            if token.len() < MIN_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(refuse("a token must have at least 16 printable ASCII characters"));
            }
            let scopes: Option<Vec<Scope>> = scopes.split(',').map(|s| Scope::parse(s.trim())).collect();
            let scopes = scopes.ok_or_else(|| refuse("scopes are publish, read and admin, joined by commas"))?;
            let digest = sha256(token.as_bytes());
            if tokens.iter().any(|(other, _)| *other == digest) {
                return Err(refuse("this token stands twice"));
            }
            tokens.push((digest, scopes));
        }
        if tokens.is_empty() {
            return Err(Error::invalid("auth.tokens_file", "holds no token"));
        }
        Ok(Tokens(Arc::new(RwLock::new(tokens))))
    }

    /// From now on these are the tokens.
    pub fn replace(&self, new: Tokens) {
        let new = std::mem::take(&mut *new.0.write().unwrap_or_else(PoisonError::into_inner));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Lets a request pass that has a token with this scope.
    pub(super) fn check(&self, headers: &HeaderMap, scope: Scope) -> Answer<()> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(Failure::unauthorized("send a token as `Authorization: Bearer TOKEN`"));
        };
        let bearer = value.to_str().ok().and_then(|v| v.split_once(' '));
        let Some((_, token)) = bearer.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")) else {
            return Err(Failure::unauthorized("the Authorization header is not `Bearer TOKEN`"));
        };
        let digest = sha256(token.trim().as_bytes());
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match known.iter().find(|(known, _)| *known == digest) {
            None => Err(Failure::unauthorized("this token is not known here")),
            Some((_, has)) if has.contains(&scope) || has.contains(&Scope::Admin) => Ok(()),
            Some(_) => Err(Failure::forbidden(format!("this token does not have the scope {}", scope.name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ONE: &str = "0123456789abcdef";

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn a_token_does_what_its_scopes_say() {
        let text = format!("# keys\n{ONE} publish,read # CI\nfedcba9876543210\tadmin\n\n");
        let tokens = Tokens::parse(&text).unwrap();
        assert!(tokens.check(&bearer(ONE), Scope::Publish).is_ok());
        assert!(tokens.check(&bearer(ONE), Scope::Read).is_ok());
        assert_eq!(tokens.check(&bearer(ONE), Scope::Admin).unwrap_err().status, 403);
        assert!(tokens.check(&bearer("fedcba9876543210"), Scope::Publish).is_ok());
        assert_eq!(tokens.check(&bearer("fedcba9876543211"), Scope::Read).unwrap_err().status, 401);
        assert_eq!(tokens.check(&HeaderMap::new(), Scope::Read).unwrap_err().status, 401);
        tokens.clone().replace(Tokens::parse("another-0123456789 read").unwrap());
        assert!(tokens.check(&bearer("another-0123456789"), Scope::Read).is_ok());
        assert_eq!(tokens.check(&bearer(ONE), Scope::Publish).unwrap_err().status, 401);
    }

    #[test]
    fn a_line_that_is_wrong_is_named_without_its_token() {
        for bad in ["0123456789abcdef", "short read", "0123456789abcdef reed", "0123456789abcdef read,", ""] {
            let e = Tokens::parse(bad).unwrap_err();
            assert!(!e.message.contains(ONE), "{e}");
        }
        assert!(Tokens::parse(&format!("{ONE} read\n{ONE} publish")).is_err());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, format!("{ONE} read")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Tokens::read(&file).unwrap_err().message.contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Tokens::read(&file).is_ok());
    }
}
