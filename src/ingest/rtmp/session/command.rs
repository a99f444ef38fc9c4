//! Commands and data messages: from `connect` to the request to publish, and the goodbye.
//!
//! Enters: messages whose bodies are AMF
//! Leaves: replies, events and the session's next phase
//! Never:  media
//! Spec:   [RTMP] §7.2

use std::time::Instant;

use super::{Error, Event, Output, Phase, Request, Session};
use crate::ingest::rtmp::amf::{self, Value};
use crate::ingest::rtmp::chunk::{self, kind};
use crate::ingest::rtmp::metadata::clip;
use crate::ingest::rtmp::reply::{Level, Status};
use crate::ingest::rtmp::{APP, Metadata};

/// Message streams one connection may create. Publishers create one.
pub(super) const MAX_CREATED_STREAMS: u32 = 8;

/// What only a publisher of Enhanced RTMP says when it connects.
const ENHANCED_PROPERTIES: [&str; 4] = [
    "fourCcList",
    "videoFourCcInfoMap",
    "audioFourCcInfoMap",
    "capsEx",
];

impl Session {
    pub(super) fn data(&mut self, message: &chunk::Message) -> Result<(), Error> {
        if !matches!(self.phase, Phase::Publishing { .. }) {
            let (type_id, phase) = (message.type_id, self.phase.name());
            return Err(Error::UnexpectedMedia { type_id, phase });
        }
        let values = match parse(message) {
            Ok(values) => values,
            // Data is not ours to judge: cue points and captions come in encodings of their own.
            Err(Error::Amf {
                source: amf::Error::Marker { .. },
                ..
            }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(metadata) = Metadata::from_values(&values) {
            self.outputs
                .push_back(Output::Event(Event::Metadata(metadata)));
        }
        Ok(())
    }

    pub(super) fn command(&mut self, message: &chunk::Message, now: Instant) -> Result<(), Error> {
        let values = parse(message)?;
        let found = values.len();
        let name = values
            .first()
            .and_then(Value::as_text)
            .ok_or(Error::ShortCommand { found })?;
        let transaction = values
            .get(1)
            .and_then(Value::as_number)
            .ok_or(Error::ShortCommand { found })?;
        match name {
            "connect" => self.connect(transaction, &values, now),
            "createStream" => self.create_stream(transaction),
            "publish" => self.publish(message.stream_id, &values, now),
            "releaseStream" | "FCPublish" => {
                // OBS, librtmp and ffmpeg do not wait for this; some hardware encoders do.
                let result = self.writer.result(transaction, None);
                self.send(result);
                Ok(())
            }
            "FCUnpublish" | "deleteStream" | "closeStream" => {
                if matches!(self.phase, Phase::Publishing { .. }) {
                    self.outputs.push_back(Output::Event(Event::Unpublished));
                    self.close();
                }
                Ok(())
            }
            "play" | "play2" => {
                let status = Status {
                    level: Level::Error,
                    code: "NetStream.Play.Failed",
                    description: "This server only takes publishers; watch over HLS or DASH.",
                };
                let status = self.writer.status(message.stream_id, &status);
                self.send(status);
                Err(Error::Play)
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, transaction: f64, values: &[Value], now: Instant) -> Result<(), Error> {
        if !matches!(self.phase, Phase::Connecting) {
            return Err(self.unexpected("connect"));
        }
        let argument = |name| values.get(2).and_then(|o| o.property(name)?.as_text());
        let app = argument("app").unwrap_or_default();
        let bare = app.split('?').next().unwrap_or_default();
        if bare.trim_matches('/') != APP {
            return Err(self.refuse_app(transaction, app));
        }
        self.encoder = argument("flashVer").filter(|v| !v.is_empty()).map(clip);
        let enhanced = ENHANCED_PROPERTIES
            .iter()
            .any(|name| values.get(2).is_some_and(|o| o.property(name).is_some()));
        for reply in self.writer.connect_accepted(transaction, enhanced) {
            self.send(reply);
        }
        self.phase = Phase::Connected;
        self.expect(now, self.config.handshake_timeout, "request to publish");
        Ok(())
    }

    /// `_error` is what the protocol asks for and ffmpeg shows; librtmp closes with a word in its
    /// log only on a status.
    fn refuse_app(&mut self, transaction: f64, app: &str) -> Error {
        let found = clip(app);
        let description = format!(
            "There is no application \"{found}\" here: the address ends in /{APP}, the stream key stands apart."
        );
        let mut status = Status {
            level: Level::Error,
            code: "NetConnection.Connect.Rejected",
            description: &description,
        };
        let error = self.writer.error(transaction, &status);
        self.send(error);
        status.code = "NetConnection.Connect.InvalidApp";
        let status = self.writer.status(0, &status);
        self.send(status);
        Error::App { found }
    }

    fn create_stream(&mut self, transaction: f64) -> Result<(), Error> {
        if matches!(self.phase, Phase::Connecting) {
            return Err(self.unexpected("createStream"));
        }
        if self.created_streams == MAX_CREATED_STREAMS {
            return Err(Error::TooManyStreams);
        }
        self.created_streams += 1;
        let result = self
            .writer
            .result(transaction, Some(f64::from(self.created_streams)));
        self.send(result);
        Ok(())
    }

    /// The mode (`live`, `record`, `append`) changes nothing here, so that it may be missing.
    fn publish(&mut self, stream_id: u32, values: &[Value], now: Instant) -> Result<(), Error> {
        let created = (1..=self.created_streams).contains(&stream_id);
        if !matches!(self.phase, Phase::Connected) || !created {
            return Err(self.unexpected("publish"));
        }
        let name = values.get(3).and_then(Value::as_text).unwrap_or_default();
        let (stream_key, query) = match name.split_once('?') {
            Some((key, query)) => (key, Some(query.to_owned())),
            None => (name, None),
        };
        let request = Request {
            stream_key: stream_key.to_owned(),
            query,
            encoder: self.encoder.clone(),
        };
        self.phase = Phase::Requested { stream_id };
        self.expect(now, self.config.handshake_timeout, "decision");
        self.outputs
            .push_back(Output::Event(Event::Requested(request)));
        Ok(())
    }

    fn unexpected(&self, name: &str) -> Error {
        Error::UnexpectedCommand {
            name: name.to_owned(),
            phase: self.phase.name(),
        }
    }
}

/// The values of a command or data message. What calls itself AMF3 is AMF0 after a zero byte.
fn parse(message: &chunk::Message) -> Result<Vec<Value>, Error> {
    let type_id = message.type_id;
    let amf3 = matches!(type_id, kind::COMMAND_AMF3 | kind::DATA_AMF3);
    let body = match message.data.split_first() {
        Some((0, rest)) if amf3 => rest,
        _ => &message.data[..],
    };
    amf::parse(body).map_err(|source| Error::Amf { type_id, source })
}
