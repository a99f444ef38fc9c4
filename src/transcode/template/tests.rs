use super::*;

#[test]
fn every_shipped_file_is_valid_and_says_its_contract() {
    for (name, text) in SHIPPED {
        let template = Template::named(name).unwrap_or_else(|invalid| panic!("{invalid}"));
        assert_eq!(template.name, *name);
        for word in [
            "Caps in:",
            "Caps out:",
            "GOP:",
            "B-frames:",
            "Timestamps:",
            "Latency:",
        ] {
            let header = text.lines().take_while(|line| line.starts_with('#'));
            assert!(
                header.clone().any(|l| l.contains(word)),
                "{name}: no {word}"
            );
        }
    }
}

#[test]
fn every_file_in_the_folder_is_shipped() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    for entry in std::fs::read_dir(folder).expect("pipelines/") {
        let name = entry.expect("entry").file_name();
        let name = name.to_string_lossy();
        if let Some(stem) = name.strip_suffix(".toml") {
            let shipped = Pipeline::named(stem);
            assert!(shipped.is_ok(), "{name} is not in SHIPPED");
        }
    }
}

#[test]
fn all_mistakes_are_listed_with_their_paths() {
    let text = r#"
        summary = "x"
        colour = "red"
        latency_ms = "soon"
        [video]
        codec = "h266"
        keyframes = "counted"
        closed_gop = false
        b_frames = 99
        encoder = "x264enc bitrate={bitrate} } ! video/x-h264"
        cost_us_per_kilopixel = 10
        [[video.rung]]
        height = "huge"
        max_fps = 90
        [[video.rung]]
        height = 720
        max_fps = 30
        bitrate_kbps = 100
        speed = 3
    "#;
    let invalid = Template::parse("mine.toml", text).expect_err("invalid");
    let shown = invalid.to_string();
    for wanted in [
        "mine.toml: colour: unknown key",
        "mine.toml: latency_ms: must be a whole number, found string",
        "mine.toml: video.codec: one of h264, vp9, av1, found \"h266\"",
        "mine.toml: video.closed_gop: must be true",
        "mine.toml: video.b_frames: 0 to 16, found 99",
        "mine.toml: video.encoder: unknown placeholder {bitrate}",
        "mine.toml: video.encoder: a } without its {",
        "mine.toml: video.encoder: missing placeholder {keyint}",
        "mine.toml: video.encoder: missing placeholder {bitrate_kbps} or {bitrate_bps}",
        "mine.toml: video.rung[0].height: a number of lines or \"source\"",
        "mine.toml: video.rung[0].max_fps: 1 to 60, found 90",
        "mine.toml: video.rung[0].bitrate_kbps: missing",
        "mine.toml: video.rung[1].speed: unknown key",
        "mine.toml: audio: missing",
    ] {
        assert!(shown.contains(wanted), "{wanted}\nis not in\n{shown}");
    }
    assert_eq!(invalid.problems.len(), 14, "{shown}");
}

/// `copy-top.toml` with `changes` made.
fn mixed(changes: &[(&str, &str)]) -> Result<Template, Invalid> {
    let text = Template::shipped("copy-top").expect("shipped").to_owned();
    let changed = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    Template::parse("mine.toml", &changed)
}

#[test]
fn what_is_copied_is_a_rung_and_needs_no_encoder() {
    let template = mixed(&[]).expect("shipped");
    assert!(template.is_mixed() && template.video.copies && template.audio.is_none());
    assert_eq!(template.video.rungs.len(), 5, "one of six is copied");
    assert!(!template.elements().contains(&"avenc_aac".to_owned()));
    // Sound alone may be copied too.
    let pictures = "[[video.rung]]\ncopy = true\n";
    let template = mixed(&[(pictures, "")]).expect("valid");
    assert!(template.is_mixed() && !template.video.copies);
    assert!(!Template::named("auto").expect("shipped").is_mixed());
}

#[test]
fn what_cannot_be_mixed_is_refused_by_name() {
    const COPIED_SOUND: &str = "[[audio.rung]]\ncopy = true\n";
    let encoded_sound = "[audio]\ncodec = \"aac\"\nencoder = \"a b={bitrate_bps}\"\ndelay_samples = 1024\n\
        frame_samples = 1024\n[[audio.rung]]\nbitrate_kbps = 128\n";
    let both = format!("{COPIED_SOUND}[[audio.rung]]\nbitrate_kbps = 128\n");
    let twice = "copy = true\n\n[[video.rung]]\ncopy = true\n";
    for (from, to, wanted) in [
        (
            COPIED_SOUND,
            encoded_sound,
            "audio.rung: beside pictures that are copied the sound is too",
        ),
        (
            COPIED_SOUND,
            &both,
            "audio.rung: either one with copy = true, or none",
        ),
        (
            "copy = true\n",
            twice,
            "video.rung: one with copy = true, found 2",
        ),
        (
            "copy = true\n",
            "copy = false\n",
            "video.rung[0].copy: true, or leave it out",
        ),
        (
            "copy = true\n",
            "copy = true\nheight = 720\n",
            "video.rung[0].height: unknown key",
        ),
        (
            "\"forced\"",
            "\"counted\"",
            "video.keyframes: must be \"forced\" beside a rung",
        ),
        (
            COPIED_SOUND,
            "[audio]\ncodec = \"aac\"\n[[audio.rung]]\ncopy = true\n",
            "audio.codec: unknown key",
        ),
    ] {
        let shown = mixed(&[(from, to)]).expect_err(wanted).to_string();
        assert!(shown.contains(wanted), "{wanted}\nis not in\n{shown}");
    }
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let shown = Template::named("x265").expect_err("unknown").to_string();
    assert!(shown.contains("auto") && shown.contains("nvenc"), "{shown}");
    let shown = Template::parse("a.toml", "= 3")
        .expect_err("syntax")
        .to_string();
    assert!(shown.contains("line 1"), "{shown}");
}

#[test]
fn low_delay_takes_its_own_fragment_or_a_fast_ladder() {
    for (name, _) in SHIPPED {
        let template = Template::named(name).expect("valid");
        let (encoder, own) = (
            template.video.encoder.clone(),
            template.video.encoder_low_delay.clone(),
        );
        match template.into_low_delay() {
            Ok(fast) => assert_eq!(fast.video.encoder, own.unwrap_or(encoder), "{name}"),
            Err(invalid) => {
                assert_eq!(*name, "x264-quality");
                let shown = invalid.to_string();
                assert!(
                    shown.starts_with("x264-quality: latency_ms: 1200 ms is more"),
                    "{shown}"
                );
            }
        }
    }
}

#[test]
fn a_fragment_names_its_elements() {
    assert_eq!(
        elements("x264enc a=b ! video/x-h264,c=d ! h264parse"),
        ["x264enc", "h264parse"]
    );
    let nvenc = Template::named("nvenc").expect("valid").elements();
    assert!(nvenc.contains(&"nvh264enc".to_owned()), "{nvenc:?}");
}

#[test]
fn rendering_fills_every_placeholder() {
    assert_eq!(
        render(
            "a={threads}\n  b={width}:{threads}",
            &[("threads", 3), ("width", 16)]
        ),
        "a=3 b=16:3"
    );
}
