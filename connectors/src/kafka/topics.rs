//! Topics that are made and deleted.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use levada_types::ConnectorError;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Properties;
use super::client::{ANSWER, Connection, Place, is_missing, is_permanent};
use super::watch::{PAUSES, Watch, rest};

/// How long the brokers may take to forget a topic that has been deleted.
const FORGET: Duration = Duration::from_secs(30);

/// How long brokers that have just begun may not know of one another, nor of a topic that was just made.
const SETTLE: Duration = Duration::from_secs(20);

/// Deletes a topic, and waits until it is gone. Whether there was one.
///
/// # Errors
/// When it may not be deleted. Brokers out of reach are waited for.
pub fn delete_topic(brokers: &str, properties: &Properties, topic: &str) -> Result<bool, ConnectorError> {
    let place = Place { brokers: brokers.into(), topic: topic.into(), properties: properties.clone() };
    place.connect()?.delete()
}

impl Connection {
    /// Creates the topic if there is none; how many partitions it has.
    pub fn ensure(&self, partitions: u32, replicas: Option<u32>) -> Result<u32, ConnectorError> {
        if let Some(count) = self.count("write")? {
            return Ok(count);
        }
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let replicas = replicas.map_or(-1, |replicas| replicas as i32);
        // A record's timestamp is its event time, which may be years ago: nothing is deleted for its age, and a
        // little ahead of the broker's clock is no error.
        let plain = NewTopic::new(&self.place.topic, partitions as i32, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1");
        let newest = NewTopic::new(&self.place.topic, partitions as i32, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("message.timestamp.after.max.ms", "9223372036854775807");
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        self.settled("create", || {
            for (topic, last) in [(&newest, false), (&plain, true)] {
                let results = wait(admin.create_topics([topic], &options))?;
                match results.into_iter().next() {
                    None | Some(Ok(_)) => return Ok(()),
                    Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
                    // Brokers before 3.6 do not know the second setting.
                    Some(Err((_, RDKafkaErrorCode::InvalidConfig))) if !last => {}
                    Some(Err((_, code))) => return Err(KafkaError::AdminOp(code)),
                }
            }
            Ok(())
        })?;
        // It takes the brokers a moment to know.
        let mut pause = PAUSES.0;
        loop {
            if let Some(count) = self.count("write")? {
                return Ok(count);
            }
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Asks again until there is an answer, of brokers that may have to find one another first.
    fn settled<T>(
        &self,
        action: &str,
        ask: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, ConnectorError> {
        let began = Instant::now();
        let is_early = |code| is_missing(code) || matches!(code, RDKafkaErrorCode::InvalidReplicationFactor);
        let is_final = |code| is_permanent(code) && !(is_early(code) && began.elapsed() < SETTLE);
        self.watch.patiently_unless(is_final, &self.place, action, ask)
    }

    /// What is set for the topic that makes the brokers forget some of its records, as `NAME = VALUE`. `None` also where
    /// they do not tell.
    pub fn forgets_by(&self) -> Result<Option<String>, ConnectorError> {
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let topic = ResourceSpecifier::Topic(&self.place.topic);
        self.settled("look at the settings of", || {
            let set = match wait(admin.describe_configs([&topic], &options))?.into_iter().next() {
                Some(Ok(set)) => set,
                None | Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed)) => return Ok(None),
                Some(Err(code)) => return Err(KafkaError::AdminOp(code)),
            };
            let keeping = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
            let other = |(name, keeps): (&str, &str)| {
                let value = set.get(name)?.value.as_ref()?;
                (value != keeps).then(|| format!("{name} = {value}"))
            };
            Ok(keeping.into_iter().find_map(other))
        })
    }

    /// Deletes the records of a partition that are before `offset`.
    pub fn forget(&self, partition: u32, offset: u64) -> Result<(), ConnectorError> {
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        self.patiently("delete records of", || {
            let mut before = TopicPartitionList::new();
            let offset = rdkafka::Offset::Offset(offset as i64);
            before.add_partition_offset(&self.place.topic, partition as i32, offset)?;
            let deleted = wait(admin.delete_records(&before, &options))?;
            deleted.elements().iter().try_for_each(|partition| partition.error())
        })
    }

    /// Deletes the topic, and waits until it is gone. Whether there was one.
    pub fn delete(&self) -> Result<bool, ConnectorError> {
        if self.count("delete")?.is_none() {
            return Ok(false);
        }
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        self.patiently("delete", || {
            let results = wait(admin.delete_topics(&[self.place.topic.as_str()], &options))?;
            match results.into_iter().next() {
                None | Some(Ok(_)) => Ok(()),
                Some(Err((_, code))) if is_missing(code) => Ok(()),
                Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            }
        })?;
        let mut waited = Duration::ZERO;
        while self.count("delete")?.is_some() {
            if waited > FORGET {
                return Err(ConnectorError::outage(format!(
                    "delete {}: the brokers still have it",
                    self.place.describe()
                )));
            }
            rest(PAUSES.0);
            waited += PAUSES.0;
        }
        Ok(true)
    }
}

/// The answer of an admin client, which its own thread brings.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}
