//! How far what is published is behind the log: the numbers that Kafka's own tools show for the group of the folds.

use super::{InboxLag, LagAnswer, PartitionLag, Query};
use crate::error::Result;
use crate::log::{Partition, TakenIn};

impl Query {
    /// Each partition's end in the log against its end in the newest published checkpoint, and the inbox.
    pub async fn lag(&self) -> Result<LagAnswer> {
        let (checkpoint, partitions) = self.fold_lag().await?;
        let lag = partitions.iter().map(|p| p.lag).sum();
        Ok(LagAnswer { checkpoint, lag, partitions, inbox: self.inbox_lag().await? })
    }

    /// The newest published checkpoint, and how far the folds are with each partition: what needs no right to the inbox.
    pub async fn fold_lag(&self) -> Result<(u64, Vec<PartitionLag>)> {
        let layout = self.layout().await?;
        let checkpoint = self.timestamp().await?.map_or(0, |t| t.snapshot.version);
        let ends = match checkpoint {
            0 => vec![0; usize::from(layout.partitions())],
            n => self.published_checkpoint(n).await?.checkpoint.ends,
        };
        let mut partitions = Vec::with_capacity(ends.len());
        for (partition, published) in (0..).zip(ends) {
            let end = self.log.end(Partition::Changes(partition)).await?;
            partitions.push(PartitionLag { partition, published, end, lag: end.saturating_sub(published) });
        }
        Ok((checkpoint, partitions))
    }

    /// How far the intakes are behind the inbox.
    pub async fn inbox_lag(&self) -> Result<Vec<InboxLag>> {
        let of = |TakenIn { partition, decided, end }| InboxLag {
            partition,
            decided,
            end,
            lag: end.saturating_sub(decided),
        };
        Ok(self.log.taken_in().await?.into_iter().map(of).collect())
    }
}
