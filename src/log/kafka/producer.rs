//! Appends: idempotent producers, and what their failures mean.
//!
//! There are two, so that a Commit does not stand behind the segments of the next group on one connection: a broker
//! answers one request of a connection after the other.
//!
//! librdkafka gives up on a producer whose sequence the broker does not accept (*fatal*). Then the records that it
//! had are answered `Indeterminate`, and the next append makes a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::link::{Context, Link, MAX_RECORD_BYTES, words};
use super::worker::Worker;
use super::{Shared, closed, lock};
use crate::error::{Error, Result};
use crate::log::{Offset, Partition};

/// The payload that may wait to be written or answered. librdkafka's own queue is larger and so never full.
const ROOM_BYTES: usize = 32 << 20;
/// What a record costs beside its payload.
const RECORD_BYTES: usize = 512;

type Native = ThreadedProducer<Ear>;

pub(super) struct Producers {
    /// Of `changes`, and of the topics with small records. `None` once the log is closed.
    lanes: [Mutex<Option<Arc<Native>>>; 2],
    room: Arc<Semaphore>,
    config: ClientConfig,
}

/// Hears of deliveries and failures.
pub(super) struct Ear {
    context: Context,
    failed: AtomicBool,
}

/// Somebody who waits for an offset, and the room that the record takes meanwhile.
pub(super) struct Waiting {
    answer: oneshot::Sender<Result<Offset>>,
    _room: OwnedSemaphorePermit,
}

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.failed.store(true, Ordering::SeqCst);
            tracing::warn!(reason, "a Kafka producer failed for good; another one will be made");
        }
        self.context.error(error, reason);
    }
}

impl ProducerContext for Ear {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let answer = match result {
            Ok(message) => Ok(u64::try_from(message.offset()).unwrap_or(0)),
            Err((e, message)) => {
                let place = format!("{}, partition {}", message.topic(), message.partition());
                match e.rdkafka_error_code() {
                    Some(Code::MessageSizeTooLarge) => Err(too_large(&place)),
                    code => {
                        if code == Some(Code::Fatal) {
                            self.failed.store(true, Ordering::SeqCst);
                        }
                        Err(Error::indeterminate(format!("the append to {place} may have failed: {}", words(e))))
                    }
                }
            }
        };
        let _ = waiting.answer.send(answer); // it may have stopped waiting
    }
}

fn too_large(place: &str) -> Error {
    Error::too_large("record", format!("is larger than {place} takes; its max.message.bytes was lowered"))
}

impl Producers {
    pub fn new(link: &Link) -> Result<Producers> {
        let config = link.producer();
        let lane = || Ok(Mutex::new(Some(Arc::new(native(link, &config)?))));
        Ok(Producers { lanes: [lane()?, lane()?], room: Arc::new(Semaphore::new(ROOM_BYTES)), config })
    }

    /// Appends as soon as there is room. Nothing is sent before the first poll.
    pub async fn append(&self, shared: &Shared, to: Partition, payload: Bytes) -> Result<Offset> {
        if payload.len() > MAX_RECORD_BYTES {
            return Err(Error::too_large("record", format!("{} bytes, at most {MAX_RECORD_BYTES}", payload.len())));
        }
        let size = (payload.len() + RECORD_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| closed())?;
        let (answer, receiver) = oneshot::channel();
        self.send(shared, to, &payload, Waiting { answer, _room: room })?;
        drop(payload); // librdkafka has its own copy
        receiver.await.unwrap_or_else(|_| Err(Error::indeterminate("the log closed before it answered the append")))
    }

    fn send(&self, shared: &Shared, to: Partition, payload: &[u8], waiting: Waiting) -> Result<()> {
        let (topic, partition) = shared.topics.place(to)?;
        let key = shared.topics.key(to);
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(waiting)).partition(partition).payload(payload);
        record.key = key.as_deref();
        for _ in 0..2 {
            let producer = self.current(shared, to)?;
            let Err((e, refused)) = producer.send(record) else { return Ok(()) };
            match e.rdkafka_error_code() {
                Some(Code::Fatal) => producer.context().failed.store(true, Ordering::SeqCst),
                Some(Code::MessageSizeTooLarge) => return Err(too_large(topic)),
                _ => return Err(Error::unavailable(format!("the append to {topic} was not sent: {}", words(&e)))),
            }
            record = refused;
        }
        Err(Error::unavailable(format!("the append to {topic} was not sent: the producer failed")))
    }

    /// The producer for `to`; a new one if the last one failed.
    pub fn current(&self, shared: &Shared, to: Partition) -> Result<Arc<Native>> {
        let mut lane = lock(&self.lanes[usize::from(!matches!(to, Partition::Changes(_)))]);
        let last = lane.as_ref().ok_or_else(closed)?;
        if last.context().failed.load(Ordering::SeqCst) {
            let next = Arc::new(native(&shared.link, &self.config)?);
            if let Some(last) = lane.replace(next) {
                shared.dropping.run(move || drop(last));
            }
        }
        lane.clone().ok_or_else(closed)
    }

    /// Takes no more; what is not answered yet never will be.
    pub fn close(&self, dropping: &Worker) {
        self.room.close();
        for lane in &self.lanes {
            let last = lock(lane).take();
            dropping.run(move || drop(last));
        }
    }
}

fn native(link: &Link, config: &ClientConfig) -> Result<Native> {
    link.create_with(config, |context| Ear { context, failed: AtomicBool::new(false) })
}
