use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::time::Ticks;

const BIG: Machine = Machine { cores: 64 };

fn grid() -> Grid {
    Grid::new(NonZeroU32::new(2_000).expect("not zero"))
}

fn fps(num: u32, den: u32) -> FrameRate {
    FrameRate::new(num, den).expect("valid")
}

fn source(width: u32, height: u32, rate: FrameRate) -> Source {
    let video = VideoSource {
        dimensions: Dimensions { width, height },
        pixel_aspect: PixelAspect::SQUARE,
        rate,
    };
    Source {
        video: Some(video),
        audio_rate: Some(48_000),
    }
}

fn rungs(ladder: &str, source: &Source, machine: Machine) -> String {
    let template = Template::named(ladder).expect("shipped");
    let plan = plan(&template, source, machine, grid(), 333).expect("a ladder");
    let video = plan.video.expect("pictures");
    let one =
        |r: &PlannedVideo| format!("{}={}x{}", r.name, r.dimensions.width, r.dimensions.height);
    video.rungs.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn ladder_follows_the_source() {
    let thirty = fps(30, 1);
    for (width, height, expected) in [
        (
            1920,
            1080,
            "v1080=1920x1080 v720=1280x720 v480=856x480 v360=640x360 v240=426x240",
        ),
        (
            3840,
            2160,
            "v1080=1920x1080 v720=1280x720 v480=856x480 v360=640x360 v240=426x240",
        ),
        (
            1280,
            720,
            "v720=1280x720 v480=856x480 v360=640x360 v240=426x240",
        ),
        (
            1600,
            900,
            "v900=1600x900 v720=1280x720 v480=856x480 v360=640x360 v240=426x240",
        ),
        (
            1280,
            736,
            "v720=1256x720 v480=832x480 v360=624x360 v240=416x240",
        ),
        (
            720,
            1280,
            "v720=720x1280 v480=480x856 v360=360x640 v240=240x426",
        ),
        (
            1920,
            800,
            "v800=1920x800 v720=1728x720 v480=1152x480 v360=864x360 v240=576x240",
        ),
        (640, 480, "v480=640x480 v360=480x360 v240=320x240"),
        (161, 121, "v120=160x120"),
    ] {
        let found = rungs("auto", &source(width, height, thirty), BIG);
        assert_eq!(found, expected, "{width}x{height}");
    }
}

#[test]
fn sixty_frames_stay_only_where_asked_for() {
    assert_eq!(
        rungs("auto", &source(1280, 720, fps(60, 1)), BIG),
        "v720p60=1280x720 v720=1280x720 v480=856x480 v360=640x360 v240=426x240"
    );
    let fifty = rungs("auto", &source(1920, 1080, fps(50, 1)), BIG);
    assert!(fifty.starts_with("v1080p50=1920x1080 v1080="), "{fifty}");
}

#[test]
fn a_small_machine_sheds_the_top() {
    let template = Template::named("auto").expect("shipped");
    let source = source(1920, 1080, fps(30, 1));
    let plan = plan(&template, &source, Machine { cores: 2 }, grid(), 333).expect("a ladder");
    let shed: Vec<String> = plan.shed.iter().map(ToString::to_string).collect();
    assert_eq!(shed, ["v1080"]);
}

#[test]
fn pixels_become_square() {
    let mut wide = source(720, 576, fps(25, 1));
    let aspect = |width, height| PixelAspect {
        width: NonZeroU32::new(width).expect("not zero"),
        height: NonZeroU32::new(height).expect("not zero"),
    };
    if let Some(video) = &mut wide.video {
        video.pixel_aspect = aspect(64, 45);
    }
    assert!(rungs("auto", &wide, BIG).starts_with("v576=1024x576 v480=856x480 "));
}

#[test]
fn an_impossible_source_is_refused() {
    let template = Template::named("auto").expect("shipped");
    let tiny = source(8, 8, fps(30, 1));
    let found = plan(&template, &tiny, BIG, grid(), 333);
    assert_eq!(
        found,
        Err(Error::Dimensions {
            width: 8,
            height: 8
        })
    );
    let none = Source {
        video: None,
        audio_rate: None,
    };
    assert_eq!(plan(&template, &none, BIG, grid(), 333), Err(Error::Empty));
}

#[test]
fn the_source_decides_the_rate() {
    for (rate, expected) in [
        ((25, 1), (25, 1)),
        ((30_000, 1_001), (30_000, 1_001)),
        ((2_997, 100), (30_000, 1_001)),
        ((24_000, 1_001), (24_000, 1_001)),
        ((50, 1), (50, 1)),
        ((60, 1), (60, 1)),
        ((59, 2), (30_000, 1_001)),
        ((15, 1), (15, 1)),
        ((5, 1), (10, 1)),
        ((120, 1), (60, 1)),
        ((144, 1), (48, 1)),
        ((1_000, 1), (48, 1)),
    ] {
        let found = output_rate(fps(rate.0, rate.1));
        let note = format!("{rate:?} gave {found:?}");
        if rate == (144, 1) || rate == (1_000, 1) {
            assert!(found.millihertz() <= 60_000, "{note}");
        } else {
            assert_eq!(found, fps(expected.0, expected.1), "{note}");
        }
    }
}

#[test]
fn a_rate_is_measured_and_a_false_declaration_not_believed() {
    let at = |num: u32, den: u32, count: i64| -> Vec<Ticks> {
        let rate = fps(num, den);
        let scale = crate::time::Timescale::VIDEO_90K;
        (0..count)
            .map(|slot| rate.slot_start(slot, scale))
            .collect()
    };
    let thirty = at(30, 1, 10);
    assert_eq!(estimate(None, &thirty), Some(fps(30, 1)));
    assert_eq!(
        estimate(Some(fps(30_000, 1_001)), &thirty),
        Some(fps(30_000, 1_001))
    );
    assert_eq!(estimate(Some(fps(60, 1)), &thirty), Some(fps(30, 1)));
    assert_eq!(estimate(Some(fps(25, 1)), &[]), Some(fps(25, 1)));
    assert_eq!(estimate(None, &thirty[..1]), None);
    let mut lost = at(25, 1, 12);
    lost.remove(5);
    assert_eq!(estimate(None, &lost), Some(fps(25, 1)));
}

#[test]
fn counted_key_frames_and_mixed_rates_need_whole_segments() {
    let template = Template::named("av1").expect("shipped");
    let rate = |ladder: &Template, num, den| {
        let plan = plan(ladder, &source(1280, 720, fps(num, den)), BIG, grid(), 333);
        plan.expect("a ladder").video.expect("pictures").rate
    };
    assert_eq!(rate(&template, 30_000, 1_001), fps(30, 1));
    assert_eq!(rate(&template, 24_000, 1_001), fps(24, 1));
    let template = Template::named("auto").expect("shipped");
    assert_eq!(rate(&template, 30_000, 1_001), fps(30_000, 1_001));
    assert_eq!(rate(&template, 60_000, 1_001), fps(60, 1));
}

#[test]
fn beside_a_copy_only_what_is_smaller_is_encoded() {
    let template = Template::named("copy-top").expect("shipped");
    for (width, height, rate, names, divisor) in [
        (1_920, 1_080, 30, &["v720", "v480", "v360", "v240"][..], 1),
        (1_280, 720, 60, &["v480", "v360", "v240"], 2),
        // The first rung above the source would take its size.
        (1_600, 900, 30, &["v720", "v480", "v360", "v240"], 1),
        (426, 240, 30, &[], 1),
    ] {
        let source = source(width, height, fps(rate, 1));
        let plan = plan(&template, &source, BIG, grid(), 333).expect("a ladder");
        assert!(plan.follows && plan.audio.is_none());
        let rungs = plan.video.iter().flat_map(|video| &video.rungs);
        let found: Vec<_> = rungs.clone().map(|rung| rung.name.as_str()).collect();
        assert_eq!(found, names, "{width}");
        assert!(rungs.clone().all(|rung| rung.divisor == divisor), "{width}");
    }
    // The pace is the source's, whatever it is.
    let odd = source(1_280, 720, fps(27, 1));
    let plan = plan(&template, &odd, BIG, grid(), 333).expect("a ladder");
    assert_eq!(plan.video.map(|video| video.rate), Some(fps(27, 1)));
}

#[test]
fn sound_keeps_the_common_rates() {
    for (ladder, source_rate, expected) in [
        ("auto", Some(44_100), 44_100),
        ("auto", Some(22_050), 48_000),
        ("auto", None, 48_000),
        ("vp9", Some(44_100), 48_000),
    ] {
        let template = Template::named(ladder).expect("shipped");
        let mut source = source(640, 360, fps(30, 1));
        source.audio_rate = source_rate;
        let plan = plan(&template, &source, BIG, grid(), 333).expect("a ladder");
        let found = plan.audio.map(|audio| audio.sample_rate);
        assert_eq!(found, Some(expected), "{ladder} {source_rate:?}");
    }
}

proptest! {
    #[test]
    fn no_rung_is_odd_enlarged_or_distorted(
        width in 16_u32..4_096, height in 16_u32..4_096, num in 1_u32..200, cores in 1_u32..64,
    ) {
        for (ladder, _) in crate::transcode::template::SHIPPED {
            let template = Template::named(ladder).expect("shipped");
            let source = source(width, height, fps(num, 1));
            let plan = plan(&template, &source, Machine { cores }, grid(), 333).expect("a ladder");
            // Beside a copy of a small source there may be nothing to encode.
            prop_assert!(plan.video.is_some() || template.video.copies);
            let Some(video) = plan.video else { continue };
            prop_assert!(!video.rungs.is_empty());
            let multiple = video.rungs.iter().map(|r| u64::from(r.divisor)).max().unwrap_or(1);
            if multiple > 1 && !plan.follows {
                let slots = u64::from(video.rate.num()) * 2;
                prop_assert_eq!(slots % (u64::from(video.rate.den()) * multiple), 0);
            }
            for rung in &video.rungs {
                let (w, h) = (rung.dimensions.width, rung.dimensions.height);
                prop_assert!(w % 2 == 0 && h % 2 == 0 && w <= width && h <= height);
                let (a, b) = (u64::from(w) * u64::from(video.canvas.height), u64::from(h) * u64::from(video.canvas.width));
                let two_pixels = 2 * u64::from(video.canvas.width.max(video.canvas.height));
                prop_assert!(a.abs_diff(b) <= (a / 150).max(two_pixels));
                prop_assert!(!rung.encoder.contains('{'), "unfilled");
            }
            let mut names: Vec<_> = video.rungs.iter().map(|r| r.name.clone()).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), video.rungs.len());
        }
    }
}
