//! One librdkafka consumer that stands in one partition, and the few that [`Pickers`] keeps to fetch single records.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::util::AsyncRuntime;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::link::{Context, words};
use super::{PATIENCE, Shared, lock};
use crate::error::{Error, Result};
use crate::log::{Offset, Partition, Record};

/// How many consumers wait for the next fetch.
const IDLE: usize = 4;

/// What a consumer has to say.
pub(super) enum Event {
    Record(Record),
    /// There is nothing behind the last record now.
    End,
    /// Not now.
    Trouble(Error),
    /// Never: the place is not there.
    Broken(Error),
}

/// rdkafka would spawn a task to wake the consumers of a group now and then. We join none.
pub(super) struct NoRuntime;

impl AsyncRuntime for NoRuntime {
    type Delay = std::future::Pending<()>;

    fn spawn<T: Future<Output = ()> + Send + 'static>(_: T) {}

    fn delay_for(_: Duration) -> Self::Delay {
        std::future::pending()
    }
}

/// A consumer. Dropping it leaves the work to a thread.
pub(super) struct Cursor {
    native: Option<StreamConsumer<Context, NoRuntime>>,
    /// The topic and partition that it stands in.
    place: (String, i32),
    shared: Arc<Shared>,
}

impl Cursor {
    fn new(shared: &Arc<Shared>, config: &ClientConfig) -> Result<Cursor> {
        let native = Some(shared.link.create(config)?);
        Ok(Cursor { native, place: Default::default(), shared: shared.clone() })
    }

    /// A consumer that goes along with a partition from `at` on.
    pub fn tail(shared: &Arc<Shared>, of: Partition, at: Offset) -> Result<Cursor> {
        let (topic, partition) = shared.topics.place(of)?;
        let mut cursor = Cursor::new(shared, &shared.link.tail(of))?;
        cursor.assign(topic, partition, at)?;
        Ok(cursor)
    }

    fn assign(&mut self, topic: &str, partition: i32, at: Offset) -> Result<()> {
        self.place = (topic.to_owned(), partition);
        let place = Place::Offset(i64::try_from(at).unwrap_or(i64::MAX));
        let mut list = TopicPartitionList::new();
        let assigned = list.add_partition_offset(topic, partition, place).and_then(|()| self.native().assign(&list));
        assigned.map_err(|e| Error::unavailable(format!("cannot read {topic}, partition {partition}: {}", words(&e))))
    }

    fn native(&self) -> &StreamConsumer<Context, NoRuntime> {
        self.native.as_ref().expect("only drop takes it")
    }

    /// The next event. Cancel-safe.
    pub async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.event(self.native().recv().await) {
                return event;
            }
        }
    }

    /// The next event if there is one (or none, though there is one).
    pub fn now(&self) -> Option<Event> {
        loop {
            if let Some(event) = self.event(self.native().recv().now_or_never()?) {
                return Some(event);
            }
        }
    }

    fn event(&self, what: KafkaResult<BorrowedMessage<'_>>) -> Option<Event> {
        let e = match what {
            // Not left over from where it stood before.
            Ok(message) if (message.topic(), message.partition()) == (&self.place.0[..], self.place.1) => {
                return Some(Event::Record(record(&message)));
            }
            Ok(_) => return None,
            Err(KafkaError::PartitionEOF(_)) => return Some(Event::End),
            Err(e) => e,
        };
        match e.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
                Some(Event::Broken(Error::corrupt("the log does not have this place: it was cut off")))
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Some(Event::Trouble(Error::unavailable("the topic is not there: was it deleted?")))
            }
            Some(Code::AllBrokersDown | Code::Authentication | Code::SSL | Code::TopicAuthorizationFailed) => {
                Some(Event::Trouble(Error::unavailable(format!("the log cannot be read: {}", words(&e)))))
            }
            // A broker that we may not need; a coordinator that we do not need; what librdkafka tries again by itself.
            _ => {
                tracing::debug!("a reader of the log goes on: {}", words(&e));
                None
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let native = self.native.take();
        self.shared.dropping.run(move || drop(native));
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: u64::try_from(message.offset()).unwrap_or(0),
        time_ms: message.timestamp().to_millis().map_or(0, |ms| u64::try_from(ms).unwrap_or(0)),
        payload: message.payload().map_or_else(Bytes::new, Bytes::copy_from_slice),
    }
}

/// The consumers that fetch one record at a time. They never wait at the broker, and read nothing between fetches.
#[derive(Default)]
pub(super) struct Pickers(Mutex<Vec<Cursor>>);

impl Pickers {
    /// The record at `at`, which is below the end; `None` if nothing is there.
    pub async fn pick(shared: &Arc<Shared>, topic: &str, partition: i32, at: Offset) -> Result<Option<Record>> {
        let mut idle = lock(&shared.pickers.0).pop();
        loop {
            let (mut picker, fresh) = match idle.take() {
                Some(picker) => (picker, false),
                None => (Cursor::new(shared, &shared.link.picker())?, true),
            };
            picker.assign(topic, partition, at)?;
            let late = |_| Err(Error::unavailable(format!("no answer within {PATIENCE:?}")));
            let found = tokio::time::timeout(PATIENCE, picker.find(at)).await.unwrap_or_else(late);
            let found = found.map_err(|e| e.context(format!("{topic}, partition {partition}, offset {at}")))?;
            // That a record is absent is believed only of a consumer that never stood elsewhere. Gaps are rare.
            if found.is_some() || fresh {
                shared.pickers.keep(picker, shared);
                return Ok(found);
            }
        }
    }

    fn keep(&self, picker: Cursor, shared: &Shared) {
        let mut idle = lock(&self.0);
        if picker.native().unassign().is_ok() && idle.len() < IDLE && !shared.closed.is_cancelled() {
            idle.push(picker);
        }
    }

    pub fn close(&self) {
        lock(&self.0).clear();
    }
}

impl Cursor {
    async fn find(&self, at: Offset) -> Result<Option<Record>> {
        loop {
            match self.next().await {
                // Left over from the fetch before.
                Event::Record(record) if record.offset < at => {}
                Event::Record(record) => return Ok((record.offset == at).then_some(record)),
                Event::End => return Ok(None),
                Event::Trouble(e) | Event::Broken(e) => return Err(e),
            }
        }
    }
}
