//! The real worker: the film goes in, and what comes out lies on the grid and looks like the film.

#![cfg(feature = "gst")]

mod transcode;

use headwater::codec::h264;
use headwater::media::{CodecConfig, Sample};
use headwater::time::{Ticks, Timescale};
use headwater::transcode::template::Template;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::transcode::media::{self, Clip};
use crate::transcode::oracle;
use crate::transcode::run::{self, Made};

/// A ladder of two small rungs encoded as the shipped file `name` does.
fn small(name: &str) -> Template {
    let mut template = Template::named(name).expect("shipped");
    template.video.rungs.retain(|rung| {
        use headwater::transcode::template::RungSize::Lines;
        rung.max_fps <= 30 && (rung.size == Lines(360) || rung.size == Lines(240))
    });
    template
}

fn holds_parameter_sets(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        if matches!(tail[0] & 31, 7 | 8) {
            return true;
        }
        rest = &tail[u32::from_be_bytes(*length) as usize..];
    }
    false
}

fn assert_on_the_grid(made: &Made) {
    assert_eq!(made.failure, None);
    let grid = run::grid();
    let mut cuts = Vec::new();
    for (rendition, samples) in made.renditions.iter().zip(&made.samples) {
        let (name, scale) = (&rendition.name, rendition.timescale);
        assert!(!samples.is_empty(), "{name}: nothing");
        for pair in samples.windows(2) {
            let next = pair[0].dts.checked_add(pair[0].duration).expect("in range");
            assert_eq!(next, pair[1].dts, "{name}: not contiguous");
        }
        let segment = |at: Ticks| grid.segment_at(at.at(scale)).get();
        let Some(rate) = rendition.frame_rate else {
            let frame = i64::try_from(samples[0].duration.get()).expect("small");
            assert!(
                samples
                    .iter()
                    .all(|s| s.dts.get() % frame == 0 && s.pts == s.dts)
            );
            let late = samples[0].dts.delta(grid.start_of(made.first, scale)).get();
            assert!((0..frame).contains(&late), "{name}: {late}");
            continue;
        };
        let first = rate.nearest_slot(samples[0].dts.at(scale));
        let (mut keys, mut before) = (Vec::new(), None);
        for (slot, sample) in (first..).zip(samples) {
            assert_eq!(
                sample.dts,
                rate.slot_start(slot, scale),
                "{name}: off the grid"
            );
            let number = segment(sample.dts);
            if before != Some(number) {
                assert!(sample.keyframe, "{name}: segment {number} has no key frame");
                assert_eq!(sample.pts, sample.dts, "{name}: segment {number}");
                if matches!(rendition.codec, CodecConfig::H264(_)) {
                    assert!(h264::contains_idr(&sample.data), "{name}: no IDR");
                    assert!(
                        !holds_parameter_sets(&sample.data),
                        "{name}: avc1 has none in band"
                    );
                }
            }
            if sample.keyframe {
                keys.push(sample.pts);
            }
            before = Some(number);
        }
        assert_eq!(segment(samples[0].dts), made.first.get(), "{name}");
        let mut shown: Vec<_> = samples.iter().map(|s| s.pts).collect();
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), samples.len(), "{name}: two frames in one slot");
        cuts.push((keys, samples.len()));
    }
    assert!(
        cuts.windows(2).all(|pair| pair[0] == pair[1]),
        "rungs differ: {cuts:?}"
    );
}

fn runs(ladder: &str) -> Made {
    let clip = Clip::film(4);
    let made = run::transcode(&small(ladder), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    for index in 0..made.renditions.len() {
        oracle::decodes_cleanly(&made, index);
    }
    made
}

#[test]
fn default_ladder_lies_on_the_grid() {
    let made = runs("auto");
    let names: Vec<_> = made.renditions.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["v360", "v240", "a128"]);
    // Four seconds from half a second into a segment: the slots before are held, all others once.
    assert_eq!(made.samples[0].len(), 15 + 120);
    assert!(made.samples[0].iter().all(|s| s.pts == s.dts));
}

#[test]
fn quality_ladder_lies_on_the_grid_with_b_frames() {
    let made = runs("x264-quality");
    assert_eq!(made.renditions.len(), 4);
    assert!(made.samples[0].iter().any(|s| s.pts < s.dts), "no B-frames");
}

#[test]
fn openh264_lies_on_the_grid() {
    runs("openh264");
}

#[test]
fn vp9_and_opus_lie_on_the_grid() {
    let made = runs("vp9");
    assert!(matches!(made.renditions[2].codec, CodecConfig::Opus(_)));
}

#[test]
fn av1_lies_on_the_grid_by_counting() {
    runs("av1");
}

#[test]
fn a_source_of_another_rate_keeps_it() {
    let clip = Clip::made(
        "testsrc2=size=320x240:rate=30000/1001",
        "sine=frequency=440:sample_rate=44100",
        5,
    );
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    let rate = made.renditions[0].frame_rate.expect("pictures");
    assert_eq!((rate.num(), rate.den()), (30_000, 1_001));
    assert_eq!(
        made.renditions[1].timescale,
        Timescale::new(44_100).expect("valid")
    );
}

#[test]
fn fast_and_slow_rungs_cut_at_the_same_instants() {
    let clip = Clip::made("testsrc2=size=640x360:rate=60", "sine=sample_rate=48000", 5);
    let mut template = small("auto");
    template.video.rungs[0].max_fps = 60;
    let made = run::transcode(&template, &clip, clip.start_inside_a_segment());
    assert_eq!(made.failure, None);
    let names: Vec<_> = made.renditions.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["v360p60", "v240", "a128"]);
    let keys = |index: usize| -> Vec<_> {
        let keys = made.samples[index].iter().filter(|s| s.keyframe);
        keys.map(|s| s.pts).collect()
    };
    assert_eq!(keys(0), keys(1));
    assert!(made.samples[0].len().abs_diff(2 * made.samples[1].len()) <= 1);
}

#[test]
fn colour_is_carried_through_a_scaled_rung() {
    let mut template = small("auto");
    for rung in &mut template.video.rungs {
        rung.bitrate_kbps = 20_000;
    }
    let clip = Clip::film(2);
    let made = run::transcode(&template, &clip, clip.start_of_a_segment());
    assert_eq!(made.failure, None);
    let CodecConfig::H264(config) = &made.renditions[0].codec else {
        panic!("not H.264");
    };
    assert_eq!(config.dimensions.height, 360);
    let CodecConfig::H264(source) = &clip.video.codec else {
        panic!("not H.264");
    };
    if source.colour.matrix != 2 {
        assert_eq!(config.colour, source.colour);
    }
    let psnr = oracle::psnr_against_the_film(&made, 0, config.dimensions);
    println!("{psnr:?}");
    for (plane, db) in [("y", psnr.y), ("u", psnr.u), ("v", psnr.v)] {
        assert!(db > 38.0, "{plane}: {db} dB");
    }
}

#[test]
fn pictures_that_come_as_fields_are_shown_without_combs() {
    // A bar that moves by sixteen pixels from field to field.
    let bar = "color=gray:size=640x360:rate=60[all];color=white:size=80x200:rate=60[bar];\
               [all][bar]overlay=x='mod(t*960,560)':y=80,tinterlace=interleave_top,setfield=tff";
    let coded = "-c:v libx264 -flags +ilme+ildct -x264opts tff=1 -pix_fmt yuv420p";
    let clip = Clip::coded(bar, "sine=sample_rate=48000", coded, 2);
    let made = run::transcode(&small("auto"), &clip, clip.start_of_a_segment());
    assert_on_the_grid(&made);
    let CodecConfig::H264(config) = &made.renditions[0].codec else {
        panic!("not H.264");
    };
    assert_eq!(made.samples[0].len(), 60);
    let comb = oracle::comb(&made, 0, config.dimensions);
    assert!(comb < 100, "{comb} millionths of the pixels are teeth");
}

#[test]
fn pictures_that_come_in_rgb_are_shown() {
    let clip = Clip::coded(
        "testsrc2=size=640x360:rate=30",
        "sine=sample_rate=48000",
        "-c:v libx264rgb",
        2,
    );
    let made = run::transcode(&small("auto"), &clip, clip.start_of_a_segment());
    assert_on_the_grid(&made);
    oracle::decodes_cleanly(&made, 0);
}

#[test]
fn flash_and_beep_stay_together() {
    for ladder in ["auto", "vp9"] {
        let clip = Clip::flash_and_beep();
        let made = run::transcode(&small(ladder), &clip, clip.start_inside_a_segment());
        assert_on_the_grid(&made);
        let offset_ms = oracle::beep_after_flash_ms(&made);
        println!("{ladder}: the beep comes {offset_ms:.2} ms after the flash");
        assert!(
            offset_ms.abs() <= 20.0,
            "{ladder}: the beep comes {offset_ms} ms late"
        );
    }
}

#[test]
fn a_source_without_sound_gets_silence() {
    let mut clip = Clip::film(3);
    clip.drop_audio();
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    let (video, audio) = (&made.samples[0], &made.samples[2]);
    assert_eq!(made.renditions[2].name.as_str(), "a128");
    let seconds = |samples: &Vec<Sample>, scale: i64| {
        (samples[samples.len() - 1].dts.get() - samples[0].dts.get()) * 1_000 / scale
    };
    let apart = seconds(video, 90_000) - seconds(audio, 48_000);
    assert!(apart.abs() < 100, "{apart} ms");
}

#[test]
fn sound_alone_is_a_ladder_of_sound() {
    let mut clip = Clip::film(3);
    clip.drop_video();
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    assert_eq!(made.renditions.len(), 1);
    oracle::decodes_cleanly(&made, 0);
    let loudness = oracle::loudness(&made, 0);
    assert!(loudness > 1.0, "silence: {loudness}");
}

#[test]
fn a_fragment_that_gstreamer_refuses_is_named() {
    let mut template = small("auto");
    template.video.encoder = "x264enc colour=red bitrate={bitrate_kbps}".to_owned();
    let clip = Clip::film(1);
    let made = run::transcode(&template, &clip, clip.start_inside_a_segment());
    let failure = made.failure.expect("refused");
    assert!(
        failure.contains("colour") && failure.contains("x264enc"),
        "{failure}"
    );
}

#[test]
fn damaged_pictures_do_not_end_a_broadcast() {
    let mut clip = Clip::film(4);
    clip.damage(10);
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
}

#[test]
fn sound_that_cannot_be_decoded_is_silence() {
    let mut clip = Clip::film(4);
    clip.break_audio();
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    assert_eq!(made.samples[0].len(), 15 + 120);
}

#[test]
fn a_change_of_size_is_not_seen_by_the_encoders() {
    let mut clip = Clip::film(3);
    clip.append(&Clip::made(
        "testsrc2=size=480x480:rate=30",
        "sine=sample_rate=44100",
        3,
    ));
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    let expected = 15 + 6 * 30;
    let found = made.samples[0].len();
    assert!(found.abs_diff(expected) <= 2, "{found} frames");
}

#[test]
fn last_pictures_before_the_camera_goes_off_come_out_of_every_rung_then() {
    let mut template = Template::named("copy-top").expect("shipped");
    template.video.rungs.retain(|rung| {
        use headwater::transcode::template::RungSize::Lines;
        rung.size == Lines(240)
    });
    let clip = Clip::made(
        "testsrc2=size=640x360:rate=60",
        "sine=sample_rate=48000",
        11,
    );
    let (seen, heard) = clip.with_camera_off_after(4, clip.start_of_a_segment());
    // Of every second picture all but the last, which may be shown for longer until it is known what comes.
    let all = 4 * 60 / 2 - 1;
    assert_eq!(run::mix(&template, vec![(seen, 100), (heard, all)]), all);
}

#[test]
fn b_frames_beside_copied_pictures_are_shown_and_cut_where_those_are() {
    let mut template = small("x264-quality");
    template.video.copies = true;
    template.audio = None;
    // The clip comes as fast as it is taken: an encoder that falls behind would leave pictures out.
    let encoder = &mut template.video.encoder;
    *encoder = encoder.replace("speed-preset=fast", "speed-preset=ultrafast");
    for source in [
        "testsrc2=size=480x360:rate=30",
        "testsrc2=size=480x360:rate=60",
    ] {
        let clip = Clip::made(source, "sine=sample_rate=48000", 4).in_90k();
        for blows in [&[][..], &[run::Blow::kill(60)]] {
            let ms = clip.start_inside_a_segment();
            let made = run::transcode_with(&template, &clip, ms, blows);
            assert_eq!((&made.failure, made.restarts.len()), (&None, blows.len()));
            let names: Vec<_> = made.renditions.iter().map(|r| r.name.as_str()).collect();
            assert_eq!(names, ["vcopy", "v240", "acopy"]);
            assert_beside(&made.samples[0], &made.samples[1], blows.len());
            oracle::decodes_cleanly(&made, 1);
        }
    }
}

/// Every picture of `encoded` is shown where one of `copied` is, and decoded where one is, a key frame where that is
/// one: every one or every second one, but for a few at each of the `restarts` of the worker.
fn assert_beside(copied: &[Sample], encoded: &[Sample], restarts: usize) {
    let step = (copied.len() + encoded.len() / 2) / encoded.len();
    let mut since = 0;
    let mut expected: Vec<_> = copied.iter().map(|s| (s.pts, s.keyframe)).collect();
    expected.sort_unstable();
    expected.retain(|(_, is_key)| {
        since = if *is_key { 0 } else { since + 1 };
        since % step == 0
    });
    let keys: Vec<_> = copied.iter().filter(|s| s.keyframe).collect();
    for key in &keys {
        let same = encoded.iter().find(|s| s.dts == key.dts);
        assert_eq!(same.map(|s| (s.pts, s.keyframe)), Some((key.pts, true)));
    }
    assert!(encoded.windows(2).all(|pair| pair[0].dts < pair[1].dts));
    let mut shown: Vec<_> = encoded.iter().map(|s| (s.pts, s.keyframe)).collect();
    shown.sort_unstable();
    assert!(
        encoded.windows(2).any(|pair| pair[0].pts > pair[1].pts),
        "no B-frames"
    );
    let missing = expected
        .iter()
        .filter(|(pts, _)| !shown.iter().any(|(at, _)| at == pts));
    let missing = missing.count();
    assert!(missing <= 3 * restarts, "{missing} are missing");
    let known = |(pts, _): &&(Ticks, bool)| !expected.iter().any(|(at, _)| at == pts);
    assert_eq!(shown.iter().find(known), None, "it is not the source's");
    let extra = shown.iter().filter(|(_, is_key)| *is_key).count() - keys.len();
    assert!(extra <= restarts, "{extra} key frames more");
}

/// Samples on consecutive places from the first segment on, every segment of pictures beginning with a key
/// frame; `holes` places may be missing in all.
fn assert_one_run(made: &Made, holes: i64) {
    assert_eq!(made.failure, None);
    for (index, samples) in made.samples.iter().enumerate() {
        let (name, scale) = (
            &made.renditions[index].name,
            made.renditions[index].timescale,
        );
        let mut missing = 0;
        for pair in samples.windows(2) {
            let next = pair[0].dts.checked_add(pair[0].duration).expect("in range");
            let hole = pair[1].dts.delta(next).get();
            assert!(hole >= 0, "{name}: overlap");
            missing += hole / i64::try_from(pair[0].duration.get()).expect("small");
            let number = |at: Ticks| run::grid().segment_at(at.at(scale));
            let is_cut = number(pair[0].dts) != number(pair[1].dts);
            assert!(!is_cut || pair[1].keyframe, "{name}: no key frame");
        }
        assert!(missing <= holes, "{name}: {missing} places are missing");
        let mut shown: Vec<_> = samples.iter().map(|s| s.pts).collect();
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), samples.len(), "{name}: shown twice");
    }
}

#[test]
fn what_a_killed_worker_leaves_another_one_carries_on() {
    let clip = Clip::film(6);
    for ladder in ["auto", "vp9"] {
        let template = small(ladder);
        let made = run::transcode_with(
            &template,
            &clip,
            clip.start_inside_a_segment(),
            &[run::Blow::kill(52)],
        );
        assert_eq!(made.restarts, [false]);
        assert_one_run(&made, 0);
        assert_eq!(made.samples[0].len(), 15 + 180, "{ladder}");
        assert_eq!(made.samples[1].len(), 15 + 180, "{ladder}");
        for index in 0..made.renditions.len() {
            oracle::decodes_cleanly(&made, index);
        }
    }
}

#[test]
fn no_picture_moves_when_another_worker_takes_over() {
    let mut template = small("auto");
    for rung in &mut template.video.rungs {
        rung.bitrate_kbps = 20_000;
    }
    let clip = Clip::film(3);
    let kill = [run::Blow::kill(37)];
    let made = run::transcode_with(&template, &clip, clip.start_of_a_segment(), &kill);
    assert_eq!(made.restarts, [false]);
    let CodecConfig::H264(config) = &made.renditions[0].codec else {
        panic!("not H.264");
    };
    let psnr = oracle::psnr_against_the_film(&made, 0, config.dimensions);
    assert!(psnr.y > 38.0, "{psnr:?}");
}

#[test]
fn flash_and_beep_stay_together_over_a_death() {
    let clip = Clip::flash_and_beep();
    let kill = [run::Blow::kill(70)];
    let made = run::transcode_with(&small("auto"), &clip, clip.start_inside_a_segment(), &kill);
    assert_eq!(made.restarts, [false]);
    assert_one_run(&made, 0);
    let offset_ms = oracle::beep_after_flash_ms(&made);
    assert!(offset_ms.abs() <= 20.0, "{offset_ms} ms");
}

#[test]
fn ladders_with_b_frames_or_counted_key_frames_lose_little() {
    let clip = Clip::film(8);
    // The second time a segment begins within the look-ahead of the new encoder.
    for (ladder, at, holes) in [
        ("x264-quality", 75, 4),
        ("x264-quality", 100, 4),
        ("av1", 75, 60),
    ] {
        let kill = [run::Blow::kill(at)];
        let made = run::transcode_with(&small(ladder), &clip, clip.start_of_a_segment(), &kill);
        assert_eq!(made.restarts, [false], "{ladder}, {at}");
        assert_one_run(&made, holes);
    }
}

#[test]
fn a_worker_that_is_stopped_is_replaced() {
    let clip = Clip::film(4);
    let stop = [run::Blow {
        at: 40,
        signal: "-STOP",
    }];
    let made = run::transcode_with(&small("auto"), &clip, clip.start_of_a_segment(), &stop);
    assert_eq!(made.restarts, [false]);
    assert_one_run(&made, 0);
    assert_eq!(made.samples[0].len(), 120);
}

#[test]
fn a_second_death_leaves_out_what_may_have_caused_both() {
    let clip = Clip::made(
        "testsrc2=size=320x240:rate=30",
        "sine=frequency=440:sample_rate=48000",
        25,
    );
    let kills = [run::Blow::kill(40), run::Blow::kill(45)];
    let made = run::transcode_with(&small("auto"), &clip, clip.start_of_a_segment(), &kills);
    assert_eq!(made.restarts, [false, true]);
    // The picture is held for what is left out.
    assert_one_run(&made, 0);
    assert_eq!(made.samples[0].len(), 25 * 30);
}

/// Neither what an encoder sends that has but one key frame, nor what refreshes its pictures bit by bit.
#[test]
fn a_source_without_key_frames_is_heard_and_seen_again_after_two_deaths() {
    for (refresh, is_seen) in [
        ("keyint=60:intra-refresh=1", true),
        ("keyint=infinite", false),
    ] {
        let coded = format!("-c:v libx264 -pix_fmt yuv420p -x264-params {refresh}:bframes=0");
        let clip = Clip::coded(
            "testsrc2=size=320x240:rate=30",
            "sine=frequency=440:sample_rate=48000",
            &coded,
            25,
        );
        let kills = [run::Blow::kill(40), run::Blow::kill(45)];
        let made = run::transcode_with(&small("auto"), &clip, clip.start_of_a_segment(), &kills);
        assert_eq!(made.restarts, [false, true], "{refresh}");
        assert_one_run(&made, 0);
        let changes = oracle::changes(&made, 0);
        let (end, long) = (changes.len() - 60, changes.len() > 24 * 30);
        assert!(long, "{refresh}: {}", changes.len());
        let moves = changes[end..].iter().filter(|moves| **moves).count();
        assert_eq!(moves > 50, is_seen, "{refresh}: {moves} of the last 60");
        assert!(is_seen || moves == 0, "{refresh}: damage is shown");
        let sound = made.renditions.len() - 1;
        assert!(oracle::loudness(&made, sound) > 500.0, "{refresh}");
    }
}

#[test]
fn a_worker_can_do_nothing_but_transcode() {
    let told = run::confinement();
    let files = !told.contains("this kernel does not confine what files are opened");
    for (what, possible) in [
        ("open a socket", false),
        ("listen", false),
        ("read /etc/passwd", !files),
        ("read the server's environment", !files),
        ("write a file", !files),
        ("change whose a file is", false),
        ("read a library", true),
        ("run a program", false),
        ("start a thread", true),
        ("send to an address", false),
        ("talk to itself", true),
        ("signal the server", false),
        ("slow the server down", false),
        ("choose the server's processors", false),
        ("limit the server", false),
        ("act as root", false),
        ("outlive the server", false),
        ("be dumped", false),
        ("have files without end", false),
        ("have memory without end", false),
    ] {
        assert_told(&told, what, possible);
    }
}

fn assert_told(told: &str, what: &str, possible: bool) {
    let can = if possible { "can" } else { "cannot" };
    assert!(told.contains(&format!("{can} {what}\n")), "{told}");
}

#[test]
fn a_worker_can_start_nothing_signal_nobody_and_have_no_memory_that_is_not_counted() {
    let told = run::calls();
    for what in [
        "fork",
        "clone3",
        "have a network of its own",
        "share another namespace",
        "queue a signal",
        "queue a signal for a thread",
        "have input signalled",
        "choose how input is signalled",
        "have input signalled otherwise",
        "idle the server",
        "slow its disk down",
        "undo its end",
        "be traced",
        "leave its group",
        "share memory",
        "map zeros",
        "grow a stack",
        "have files in memory",
        "have secrets in memory",
        "have memory of the system",
        "have queues",
        "mount",
        "open a tree",
        "set attributes",
        "ask for routes",
    ] {
        assert_told(&told, what, false);
    }
    #[cfg(target_arch = "x86_64")]
    for what in ["fork as of old", "call by other numbers", "change modes"] {
        assert_told(&told, what, false);
    }
    for what in [
        "slow itself down",
        "choose its own processors",
        "have a little memory",
        "ask for devices",
    ] {
        assert_told(&told, what, true);
    }
}

#[test]
fn a_worker_that_breaks_down_is_not_dumped() {
    let clip = Clip::film(8);
    // Who asks for dumps gets those of the server.
    let dumps = Rlimit {
        current: getrlimit(Resource::Core).maximum,
        ..getrlimit(Resource::Core)
    };
    setrlimit(Resource::Core, dumps).expect("its own limit");
    let blows = [40, 42, 44].map(|at| run::Blow {
        at,
        signal: "-ABRT",
    });
    let made = run::transcode_with(&small("auto"), &clip, clip.start_of_a_segment(), &blows);
    let failure = made.failure.expect("given up");
    assert!(failure.contains("SIGABRT"), "{failure}");
    assert!(!failure.contains("core dumped"), "{failure}");
}

#[test]
fn a_third_death_ends_the_broadcast() {
    let clip = Clip::film(8);
    let kills = [40, 42, 44].map(run::Blow::kill);
    let made = run::transcode_with(&small("auto"), &clip, clip.start_of_a_segment(), &kills);
    assert_eq!(made.restarts, [false, true]);
    let failure = made.failure.expect("given up");
    assert!(failure.contains("signal: 9"), "{failure}");
}

#[test]
fn tracks_that_come_and_go_leave_the_renditions_as_they_are() {
    let made_as = |audio| Clip::made("testsrc2=size=640x360:rate=30", audio, 3);
    let mut clip = made_as("sine=sample_rate=48000");
    clip.drop_audio();
    clip.append(&made_as("sine=frequency=600:sample_rate=44100"));
    let mut blind = made_as("sine=sample_rate=48000");
    blind.drop_video();
    clip.append(&blind);
    clip.append(&made_as("sine=sample_rate=48000"));
    let made = run::transcode(&small("auto"), &clip, clip.start_inside_a_segment());
    assert_on_the_grid(&made);
    for index in 0..made.renditions.len() {
        oracle::decodes_cleanly(&made, index);
    }
    let found = made.samples[0].len();
    assert!(found.abs_diff(15 + 12 * 30) <= 2, "{found} frames");
    // Nine of twelve seconds of a tone whose mean is 2600.
    let loudness = oracle::loudness(&made, 2);
    assert!(loudness > 1_300.0, "{loudness}");
}

#[test]
fn a_ladder_for_absent_hardware_names_what_is_missing() {
    for (ladder, element) in [
        ("nvenc", "nvh264enc"),
        ("qsv", "qsvh264enc"),
        ("vaapi", "vah264enc"),
    ] {
        let template = Template::named(ladder).expect("shipped");
        if media::has_element(element) {
            continue;
        }
        let probe = run::probe(&template.elements());
        assert_eq!(probe.missing, [element], "{ladder}");
        assert!(probe.gstreamer.starts_with("1."), "{}", probe.gstreamer);
    }
    let probe = run::probe(&Template::named("auto").expect("shipped").elements());
    assert!(probe.missing.is_empty(), "{:?}", probe.missing);
}
