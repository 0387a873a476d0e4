//! Rendering a bin at a cut: a pure function of bin state, cut and keys.

use std::sync::Arc;

use bytes::Bytes;

use super::state::State;
use crate::bins::{Bin, Sha256Digest, sha256};
use crate::error::Result;
use crate::tuf::key::Signer;
use crate::tuf::role::{self, Meta};

/// A bin that gets a new version.
pub struct Rendered {
    /// The whole file.
    pub file: Bytes,
    /// The file's version, length and digest.
    pub meta: Meta,
    /// The digest of its content.
    pub content: Sha256Digest,
}

/// What a cut says about all the bins it renders.
#[derive(Clone)]
pub struct CutOfBins {
    /// The version: the cut's number.
    pub n: u64,
    /// Unix seconds.
    pub expires: u64,
    /// Who signs.
    pub signers: Arc<[Arc<Signer>]>,
}

/// Renders a bin. Without `always`, one whose content is the published one is left alone: `None`.
pub fn bin(state: &State, bin: Bin, cut: &CutOfBins, always: bool) -> Result<Option<Rendered>> {
    let mut content = Vec::new();
    state.content(bin, &mut content)?;
    let digest = sha256(&content);
    if !always && digest == state.published(bin)? {
        return Ok(None);
    }
    let file = role::bin(&cut.signers, cut.n, cut.expires, &content);
    Ok(Some(Rendered { meta: Meta::of(cut.n, &file), file: file.into(), content: digest }))
}

/// The digest of a bin's content as it stands.
pub fn content_digest(state: &State, bin: Bin) -> Result<Sha256Digest> {
    let mut content = Vec::new();
    state.content(bin, &mut content)?;
    Ok(sha256(&content))
}
