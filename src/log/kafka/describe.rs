//! What brokers say of topics and groups that rdkafka does not ask: what this user may do, and who is in a group.
//!
//! librdkafka asks it (`rd_kafka_DescribeTopics`, `rd_kafka_DescribeConsumerGroups`), and this file is where its
//! functions are called directly: the only `unsafe` code outside tests. Three rules keep it sound:
//!
//! - The client, borrowed for a whole question, outlives the queue, the options and the answer, which are freed here in
//!   the opposite order ([`Owned`]).
//! - Everything that an answer points to is copied before the answer is freed. Null, a count below zero and text that
//!   is no UTF-8 are taken for what they are.
//! - A number that the library gives for an operation is read as a number, so that one that is new is no undefined value.
//!
//! Every function blocks, at most as long as [`PATIENCE`] says.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};

use rdkafka::bindings as native;
use rdkafka::bindings::rd_kafka_consumer_group_state_t as State;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::PATIENCE;
use super::inspect::{Group, GroupState, Member, Right};
use crate::error::{Error, Result};

/// An answer, or the code with which a broker refused it.
pub(super) type Answer<T> = std::result::Result<T, Code>;

/// What may be done with a topic; `None` if the broker does not say.
pub(super) type TopicRights = Answer<Option<BTreeSet<Right>>>;

/// Something of librdkafka's that is freed with this.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>> {
        match pointer.is_null() {
            true => Err(Error::unavailable("librdkafka did not take the question")),
            false => Ok(Owned(pointer, free)),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` took a pointer that is not null, whose function to free is this one, and nobody else has it.
        unsafe { self.1(self.0) }
    }
}

/// Asks, and gives the answer to `read`.
fn ask<C: ClientContext + ConsumerContext, T>(
    consumer: &BaseConsumer<C>,
    (op, what): (native::rd_kafka_admin_op_t, &str),
    send: impl FnOnce(*mut native::rd_kafka_t, *mut native::rd_kafka_AdminOptions_t, *mut native::rd_kafka_queue_t),
    read: impl FnOnce(*mut native::rd_kafka_event_t) -> T,
) -> Result<T> {
    let client = consumer.client().native_ptr();
    let failed = |why: String| Error::unavailable(format!("cannot {what}: {why}"));
    let millis = PATIENCE.as_millis() as i32;
    let mut why = [0; 256];
    // SAFETY: the client lives as long as `consumer`, which is borrowed; `why` is as long as is said; the other
    // pointers were made by the library for this client and are freed when this returns, the event first.
    unsafe {
        let options = Owned::new(native::rd_kafka_AdminOptions_new(client, op), native::rd_kafka_AdminOptions_destroy)?;
        let set = native::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, why.as_mut_ptr(), why.len());
        if set != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(text(why.as_ptr())));
        }
        let refused = native::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
        if let Ok(refused) = Owned::new(refused, native::rd_kafka_error_destroy) {
            return Err(failed(text(native::rd_kafka_error_string(refused.0))));
        }
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        send(client, options.0, queue.0);
        let event = native::rd_kafka_queue_poll(queue.0, millis + 1_000);
        let event = Owned::new(event, native::rd_kafka_event_destroy).map_err(|_| failed("no answer".into()))?;
        match native::rd_kafka_event_error(event.0) {
            native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(read(event.0)),
            _ => Err(failed(text(native::rd_kafka_event_error_string(event.0)))),
        }
    }
}

/// Names as the library takes them. A name with a zero in it is none.
fn names(names: &[String]) -> Result<Vec<CString>> {
    let bad = |_| Error::invalid("kafka.repo", "holds a zero byte");
    names.iter().map(|name| CString::new(name.as_str()).map_err(bad)).collect()
}

/// What this user may do with each topic, in their order.
pub(super) fn topic_rights<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
) -> Result<Vec<(String, TopicRights)>> {
    let owned = names(topics)?;
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the pointers are to texts that live until the end of this function; the library copies them.
    let wanted = unsafe {
        let wanted = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        Owned::new(wanted, native::rd_kafka_TopicCollection_destroy)?
    };
    let op = (native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, "describe the topics");
    let send = |client, options: *mut _, queue| {
        // SAFETY: all four are alive: see `ask`.
        unsafe { native::rd_kafka_DescribeTopics(client, wanted.0, options, queue) }
    };
    ask(consumer, op, send, |event| {
        let mut count = 0;
        // SAFETY: the event is alive and of this kind, or the result is null; `all` copes with null; what is read
        // belongs to the event.
        unsafe {
            let result = native::rd_kafka_event_DescribeTopics_result(event);
            if result.is_null() {
                return Vec::new();
            }
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            let topics = all(topics.cast_const(), count).iter().map(|topic| {
                let mut count = 0;
                let rights = native::rd_kafka_TopicDescription_authorized_operations(*topic, &mut count);
                let refused = code(native::rd_kafka_TopicDescription_error(*topic));
                (
                    text(native::rd_kafka_TopicDescription_name(*topic)),
                    refused.map_or(Ok(operations(rights, count)), Err),
                )
            });
            topics.collect()
        }
    })
}

/// The group as its coordinator sees it.
pub(super) fn group<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    name: &str,
) -> Result<Answer<Group>> {
    let owned = names(&[name.to_owned()])?;
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    let op = (native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, "describe the group");
    let send = |client, options: *mut _, queue| {
        // SAFETY: all are alive: see `ask`; the library copies the names.
        unsafe {
            native::rd_kafka_DescribeConsumerGroups(client, pointers.as_mut_ptr(), pointers.len(), options, queue)
        }
    };
    let found = ask(consumer, op, send, |event| {
        let mut count = 0;
        // SAFETY: as in `topic_rights`.
        unsafe {
            let result = native::rd_kafka_event_DescribeConsumerGroups_result(event);
            if result.is_null() {
                return None;
            }
            let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
            let group = *all(groups.cast_const(), count).first()?;
            let refused = code(native::rd_kafka_ConsumerGroupDescription_error(group));
            Some(refused.map_or_else(|| Ok(read_group(group)), Err))
        }
    })?;
    found.ok_or_else(|| Error::unavailable(format!("group {name}: the answer does not hold it")))
}

/// # Safety
/// `group` is alive.
unsafe fn read_group(group: *const native::rd_kafka_ConsumerGroupDescription_t) -> Group {
    let mut count = 0;
    // SAFETY: what is read belongs to the group; members are asked for within their count.
    unsafe {
        let state = match native::rd_kafka_ConsumerGroupDescription_state(group) {
            State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE => GroupState::Stable,
            State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => GroupState::Empty,
            _ => GroupState::Rebalancing,
        };
        let members = 0..native::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = members.map(|i| native::rd_kafka_ConsumerGroupDescription_member(group, i));
        let rights = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
        Group {
            state,
            assignor: text(native::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            members: members.filter(|member| !member.is_null()).map(|member| read_member(member)).collect(),
            rights: operations(rights, count),
        }
    }
}

/// # Safety
/// `member` is alive.
unsafe fn read_member(member: *const native::rd_kafka_MemberDescription_t) -> Member {
    // SAFETY: what is read belongs to the member; a list's elements are as many as it says.
    unsafe {
        let instance = native::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = native::rd_kafka_MemberDescription_assignment(member);
        let mut partitions = BTreeSet::new();
        if !assignment.is_null()
            && let Some(list) = native::rd_kafka_MemberAssignment_partitions(assignment).as_ref()
        {
            let elements = all(list.elems.cast_const(), usize::try_from(list.cnt).unwrap_or(0));
            partitions.extend(elements.iter().map(|place| (text(place.topic), place.partition)));
        }
        Member {
            name: (!instance.is_null()).then(|| text(instance)),
            client: text(native::rd_kafka_MemberDescription_client_id(member)),
            host: text(native::rd_kafka_MemberDescription_host(member)).trim_start_matches('/').to_owned(),
            partitions,
        }
    }
}

/// # Safety
/// `first` is null, or the first of `count` values that outlive the answer.
unsafe fn all<'a, T>(first: *const T, count: usize) -> &'a [T] {
    // SAFETY: as the caller says.
    if first.is_null() || count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

/// The rights among the operations; `None` if the broker did not say.
///
/// # Safety
/// `first` is null, or the first of `count` operations; without any, it may point to nothing.
unsafe fn operations(first: *const native::rd_kafka_AclOperation_t, count: usize) -> Option<BTreeSet<Right>> {
    if first.is_null() {
        return None; // it was not asked, or did not say
    }
    // SAFETY: an operation is a C enum of this width; read as a number, any value is defined.
    let numbers = unsafe { all(first.cast::<u32>(), count) };
    Some(
        numbers.iter().filter_map(|number| Right::ALL.into_iter().find(|right| operation(*right) == *number)).collect(),
    )
}

fn operation(right: Right) -> u32 {
    use native::rd_kafka_AclOperation_t as Operation;
    let operation = match right {
        Right::Read => Operation::RD_KAFKA_ACL_OPERATION_READ,
        Right::Write => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
        Right::Describe => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        Right::DescribeConfigs => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
    };
    operation as u32
}

/// # Safety
/// `error` is null or alive.
unsafe fn code(error: *const native::rd_kafka_error_t) -> Option<Code> {
    if error.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let code = unsafe { native::rd_kafka_error_code(error) };
    (code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
}

/// # Safety
/// `from` is null or a text that ends with a zero.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}
