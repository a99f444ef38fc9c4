//! What a mixed ladder does when its worker does not do its part.

use bytes::Bytes;

use super::*;
use crate::media::made_up;
use crate::time::Span;
use crate::transcode::supervisor::Transcoder;
use crate::transcode::supervisor::tests::deaf;

const SOUND: TrackId = TrackId::new(NonZeroU32::new(2).expect("not zero"));
const PICTURE: i64 = 3_000;
const EPOCH: i64 = 1_795_000_000;

fn pictures(width: u32, height: u32, declared_rate: Option<FrameRate>) -> TrackInfo {
    TrackInfo {
        id: PICTURES,
        timescale: Timescale::VIDEO_90K,
        codec: made_up::h264(width, height, declared_rate),
    }
}

fn sound() -> TrackInfo {
    TrackInfo {
        id: SOUND,
        timescale: Timescale::new(48_000).expect("not zero"),
        codec: made_up::aac(48_000),
    }
}

fn sample(at: i64, length: u64, keyframe: bool) -> Sample {
    Sample {
        dts: Ticks::new(at),
        pts: Ticks::new(at),
        duration: Span::new(length),
        keyframe,
        data: Bytes::from_static(&[0; 64]),
    }
}

/// Picture `n` of 30 per second, with a key frame every two seconds, and the sound beside it.
fn second(seconds: i64) -> Vec<Input> {
    let mut all = Vec::new();
    for n in seconds * 30..(seconds + 1) * 30 {
        let at = EPOCH * 90_000 + n * PICTURE;
        let picture = sample(at, PICTURE.unsigned_abs(), n % 60 == 0);
        all.push(Input::Sample(PICTURES, picture));
        let block = sample(EPOCH * 48_000 + n * 1_600, 1_600, true);
        all.push(Input::Sample(SOUND, block));
    }
    all
}

fn rendition(name: &str) -> Rendition {
    Rendition {
        name: name.parse().expect("legal"),
        timescale: Timescale::VIDEO_90K,
        codec: pictures(426, 240, None).codec,
        frame_rate: FrameRate::new(30, 1),
        target_bps: 1,
    }
}

/// A broadcast of whose pictures the worker has made `v240` for some seconds.
fn opened(stream: &str) -> Mixing {
    let mut mixing = Mixing::new(deaf(stream, "copy-top"));
    for input in [
        Input::Track(pictures(640, 360, None)),
        Input::Track(sound()),
    ] {
        mixing.take(Some(input)).expect("taken");
    }
    for input in (0..4).flat_map(second) {
        mixing.take(Some(input)).expect("taken");
    }
    let output = Output::Opened {
        renditions: vec![rendition("v240")],
        cuts: super::super::Cuts::Grid,
    };
    mixing.encoded(Some(output)).expect("taken");
    for input in (0..3).flat_map(second) {
        encode(&mut mixing, input);
    }
    assert!(mixing.link.is_some() && mixing.merger.is_open());
    mixing
}

fn encode(mixing: &mut Mixing, input: Input) {
    if let Input::Sample(PICTURES, sample) = input {
        let rendition = 0;
        let output = Output::Sample { rendition, sample };
        mixing.encoded(Some(output)).expect("taken");
    }
}

/// What is said of encoding among what is ready: whether it was given up, and is tried again.
fn said(mixing: &Mixing) -> Vec<Option<bool>> {
    let said = mixing.ready.iter().filter_map(|output| match output {
        Output::GivenUp(given_up) => Some(given_up.as_ref().map(|given_up| given_up.retries)),
        _ => None,
    });
    said.collect()
}

/// How many samples of each rendition are ready, and what rests.
fn taken(mixing: &mut Mixing) -> (Vec<usize>, bool) {
    let (mut counts, mut rests) = (vec![0; 3], false);
    for output in mixing.ready.drain(..) {
        match output {
            Output::Sample { rendition, .. } => counts[rendition] += 1,
            Output::Rest { rendition: 1, .. } => rests = true,
            _ => {}
        }
    }
    (counts, rests)
}

#[tokio::test(start_paused = true)]
async fn what_is_copied_goes_on_when_no_worker_is_worth_a_try_and_one_is_tried_again_later() {
    let mut mixing = opened("given-up");
    taken(&mut mixing);
    let failed = mixing.encoded(Some(Output::Failed(Error::Stalled)));
    assert!(failed.is_ok(), "the broadcast goes on");
    assert_eq!(said(&mixing), [Some(true)]);
    for input in (4..30).flat_map(second) {
        mixing.take(Some(input)).expect("taken");
    }
    let (counts, rests) = taken(&mut mixing);
    assert!(counts[0] > 25 * 30 && rests, "{counts:?}");
    assert!(mixing.link.is_none() && mixing.backlog.is_empty() && !mixing.is_ahead());

    tokio::time::advance(RETRY_AFTER).await;
    for input in (30..34).flat_map(second) {
        mixing.take(Some(input)).expect("taken");
    }
    assert!(mixing.link.is_some(), "it is tried again");
    let output = Output::Opened {
        renditions: vec![rendition("v240")],
        cuts: super::super::Cuts::Grid,
    };
    mixing.encoded(Some(output)).expect("taken");
    assert_eq!(said(&mixing), [None], "it is encoded again");
    taken(&mut mixing);
    for seconds in 34..42 {
        for (made, input) in second(seconds - 4).into_iter().zip(second(seconds)) {
            encode(&mut mixing, made);
            mixing.take(Some(input)).expect("taken");
        }
    }
    let (counts, _) = taken(&mut mixing);
    assert!(counts[1] > 30, "it is back with a segment: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_anything_was_encoded_ends_the_broadcast() {
    let mut mixing = Mixing::new(deaf("never-begun", "copy-top"));
    mixing
        .take(Some(Input::Track(pictures(640, 360, None))))
        .expect("taken");
    for input in (0..4).flat_map(second) {
        mixing.take(Some(input)).expect("taken");
    }
    let failed = mixing.encoded(Some(Output::Failed(Error::Stalled)));
    assert!(matches!(failed, Err(Error::Stalled)));
}

#[tokio::test(start_paused = true)]
async fn end_of_the_source_is_passed_on_although_the_worker_fails_over_it() {
    let mut mixing = opened("failed-at-last");
    mixing.take(None).expect("taken");
    mixing
        .encoded(Some(Output::Failed(Error::Stalled)))
        .expect("the end");
    let (counts, _) = taken(&mut mixing);
    assert_eq!(counts[0], 120);
}

#[tokio::test(start_paused = true)]
async fn source_is_not_held_back_for_ever_by_encoders_that_make_nothing() {
    let (transcoder, mut outputs) = Transcoder::mix(deaf("silent", "copy-top"));
    let feeding = tokio::spawn(async move {
        for info in [pictures(640, 360, None), sound()] {
            transcoder.track(info).await.expect("takes it");
        }
        for input in (0..90).flat_map(second) {
            if let Input::Sample(track, sample) = input {
                transcoder.sample(track, sample).await.expect("takes it");
            }
        }
    });
    let (mut names, mut count, mut given_up) = (Vec::new(), 0, false);
    while let Some(output) = outputs.next().await {
        match output {
            Output::Opened { renditions, .. } => {
                names = renditions.iter().map(|r| r.name.to_string()).collect();
            }
            Output::Sample { rendition: 0, .. } => count += 1,
            // Once there is something of which it can be said.
            Output::GivenUp(Some(how)) => given_up = !names.is_empty() && !how.retries,
            Output::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    feeding.await.expect("fed");
    assert!(given_up);
    assert_eq!(names, ["vcopy", "acopy"]);
    assert_eq!(count, 90 * 30);
}

#[tokio::test(start_paused = true)]
async fn worker_is_told_once_that_the_pictures_have_stopped() {
    let mut mixing = opened("camera-off");
    mixing.backlog.clear();
    let blocks = (4..40)
        .flat_map(second)
        .filter(|input| matches!(input, Input::Sample(SOUND, _)));
    for input in blocks {
        mixing.take(Some(input)).expect("taken");
    }
    let told: Vec<_> = std::iter::from_fn(|| mixing.backlog.pop()).collect();
    // Of the pictures the copier held the last.
    assert!(
        matches!(told[..], [Input::Sample(..), Input::Detach]),
        "{told:?}"
    );
    for input in (40..44).flat_map(second) {
        mixing.take(Some(input)).expect("taken");
    }
    let told = mixing.backlog.pop();
    assert!(matches!(told, Some(Input::Track(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn ladder_of_which_nothing_is_encoded_hands_nothing_to_a_worker() {
    let mut mixing = Mixing::new(deaf("small", "copy-top"));
    let mut from = 0;
    for n in 0..400 {
        // Nothing of the ladder is smaller.
        let size = 200 - n % 2 * 20;
        mixing
            .take(Some(Input::Track(pictures(size, size, None))))
            .expect("taken");
        for input in (from..from + 4).flat_map(second) {
            mixing.take(Some(input)).expect("taken");
        }
        from += 4;
    }
    let (counts, _) = taken(&mut mixing);
    assert!(counts[0] > 40_000 && mixing.link.is_none(), "{counts:?}");
    assert!(mixing.backlog.is_empty());
}

#[test]
fn rate_that_the_pictures_contradict_is_measured() {
    let declared = FrameRate::new(90_000, 1);
    let codec = pictures(640, 360, declared).codec;
    let rendition = Rendition {
        codec,
        frame_rate: None,
        ..rendition("v240")
    };
    // About thirty in a second, and not evenly.
    let shown: Vec<Ticks> = (0..60)
        .map(|n| Ticks::new(n * 3_000 + n % 2 * 300))
        .collect();
    let rate = |shown: &[Ticks]| video_source(&rendition, shown).expect("pictures").rate;
    assert!(
        (20_000..40_000).contains(&rate(&shown).millihertz()),
        "{:?}",
        rate(&shown)
    );
    assert_eq!(Some(rate(&[])), FALLBACK_RATE);
}
