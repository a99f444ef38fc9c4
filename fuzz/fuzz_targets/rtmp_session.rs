//! Any bytes from a peer: media only after it was accepted, nothing after the close.

#![no_main]

use std::time::{Duration, Instant};

use headwater::ingest::rtmp::session::{Event, Output, Session};
use headwater::ingest::rtmp::{Config, Refusal, RefusalCode};
use libfuzzer_sys::fuzz_target;

fn drain(session: &mut Session, accepted: &mut bool, refuse: bool, now: Instant) -> bool {
    let mut closed = false;
    while let Some(output) = session.poll_output() {
        assert!(!closed, "nothing follows the close");
        match output {
            Output::Event(Event::Requested(_)) => {
                assert!(!*accepted, "one publication for each connection");
                if refuse {
                    session.refuse(&Refusal {
                        code: RefusalCode::Denied,
                        description: "no".to_owned(),
                    });
                } else {
                    *accepted = true;
                    let _closed_if_wrong = session.accept(now);
                }
            }
            Output::Event(_) => assert!(*accepted, "media only of accepted publications"),
            Output::Close => closed = true,
            Output::Send(bytes) => assert!(!bytes.is_empty()),
            Output::Deadline(at) => assert!(at >= now),
        }
    }
    closed
}

fuzz_target!(|input: &[u8]| {
    let [step, flags, wire @ ..] = input else {
        return;
    };
    let config = Config {
        max_message_bytes: 65_536,
        ..Config::default()
    };
    let mut now = Instant::now();
    let mut session = Session::new(config, now);
    // The handshake is not what is being looked at: most inputs begin behind it.
    let mut accepted = false;
    if flags & 1 == 0 {
        let mut hello = vec![3];
        hello.resize(3_073, 0);
        session.handle_bytes(&hello, now).expect("a handshake");
    }
    for piece in wire.chunks(usize::from(*step).max(1) * 8) {
        now += Duration::from_millis(10);
        let result = session.handle_bytes(piece, now);
        let closed = drain(&mut session, &mut accepted, flags & 2 != 0, now);
        assert!(result.is_ok() || closed, "an error closes");
        if closed {
            return;
        }
    }
    assert!(session.handle_timeout(now + Duration::from_secs(60)).is_err());
    assert!(drain(&mut session, &mut accepted, false, now));
});
