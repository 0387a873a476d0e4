//! Reads the ledger ahead to know which cuts have their Checkpoint already: those are passed without rendering or
//! signing (the old key may be gone).

use crate::error::Result;
use crate::ledger::Record;
use crate::log::{Log, Offset, Partition, Reader};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The part of a Checkpoint's bytes by which it is found without parsing every record. It cannot stand inside a
/// string: there its quotes would be escaped.
const MARK: &[u8] = b"\"kind\":\"checkpoint\"";

/// See the module.
pub struct Scout {
    reader: Box<dyn Reader>,
    next: Offset,
    last: u64,
}

impl Scout {
    /// Looks at what stands at `from` and after.
    pub fn new(log: &dyn Log, from: Offset) -> Scout {
        Scout { reader: log.reader(Partition::Ledger, from), next: from, last: 0 }
    }

    /// The highest cut that has a Checkpoint in what can be read now; 0 if none. What stands before `from` need not
    /// be looked at. (A Checkpoint of a cut is appended only by somebody who has read that Cut, so the first one is
    /// always valid.)
    pub async fn last_checkpoint(&mut self, from: Offset) -> Result<u64> {
        if from > self.next {
            self.reader.seek(from);
            self.next = from;
        }
        loop {
            let records = self.reader.read(READ_BYTES).await?;
            let Some(last) = records.last() else { return Ok(self.last) };
            self.next = last.offset + 1;
            for r in &records {
                if !r.payload.windows(MARK.len()).any(|w| w == MARK) {
                    continue;
                }
                if let Record::Checkpoint(c) = Record::decode(&r.payload)? {
                    self.last = self.last.max(c.n);
                }
            }
        }
    }
}
