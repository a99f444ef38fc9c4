use super::*;

fn facts() -> Facts {
    Facts {
        cores: 4,
        free_memory_bytes: Some(8 << 30),
        clock: Some(EARLIEST_CLOCK),
    }
}

#[test]
fn facts_are_judged_one_by_one() {
    assert_eq!(worst(&facts().checks()), Status::Ok);
    for (facts, what, status) in [
        (
            Facts {
                cores: 1,
                ..facts()
            },
            "processors",
            Status::Warn,
        ),
        (
            Facts {
                free_memory_bytes: Some(1),
                ..facts()
            },
            "memory",
            Status::Warn,
        ),
        (
            Facts {
                clock: Some(Duration::ZERO),
                ..facts()
            },
            "clock",
            Status::Fail,
        ),
        (
            Facts {
                clock: Some(LATEST_CLOCK),
                ..facts()
            },
            "clock",
            Status::Fail,
        ),
        (
            Facts {
                clock: None,
                ..facts()
            },
            "clock",
            Status::Fail,
        ),
    ] {
        let bad: Vec<_> = facts
            .checks()
            .into_iter()
            .filter(|c| c.status != Status::Ok)
            .collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert_eq!((bad[0].what.as_str(), bad[0].status), (what, status));
        assert!(!bad[0].fix.is_empty());
    }
}

#[test]
fn unknown_memory_is_no_complaint() {
    let facts = Facts {
        free_memory_bytes: None,
        ..facts()
    };
    assert_eq!(worst(&facts.checks()), Status::Ok);
}

#[test]
fn available_memory_is_read_in_bytes() {
    let meminfo = "MemTotal:       24689764 kB\nMemAvailable:   23456 kB\nBuffers: 1 kB\n";
    assert_eq!(available_memory(meminfo), Some(23_456 * 1024));
    for broken in [
        "",
        "MemAvailable:",
        "MemAvailable: x kB",
        "MemAvailable: 1 MB",
    ] {
        assert_eq!(available_memory(broken), None, "{broken:?}");
    }
}

#[test]
fn this_machine_can_be_read() {
    assert!(Facts::read().cores > 0);
}

#[test]
fn gstreamer_is_there_and_new_enough() {
    for (version, status) in [
        (None, Status::Fail),
        (Some((1, 20, 9)), Status::Fail),
        (Some((1, 22, 0)), Status::Ok),
        (Some((2, 0, 0)), Status::Ok),
    ] {
        assert_eq!(check_gstreamer(version, true).status, status, "{version:?}");
    }
}

#[test]
fn a_missing_element_fails_only_the_chosen_ladder() {
    let needs = |ladder: &str, encoder: &str| Needs {
        ladder: ladder.to_owned(),
        elements: vec!["appsrc".to_owned(), encoder.to_owned(), encoder.to_owned()],
    };
    let all = [
        needs("x264", "x264enc"),
        needs("nvenc", "nvh264enc"),
        needs("soft", "openh264enc"),
    ];
    let checks = check_ladders(&all, "x264", &|e| ["appsrc", "openh264enc"].contains(&e));
    let seen: Vec<_> = checks
        .iter()
        .map(|c| (c.status, c.detail.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Status::Fail, "missing: x264enc"),
            (Status::Warn, "missing: nvh264enc"),
            (Status::Ok, "every element is there"),
        ]
    );
    assert_eq!(checks[0].fix, "install gstreamer1.0-plugins-ugly");
    assert!(checks[1].fix.contains("NVIDIA driver"));
}

#[test]
fn a_codec_of_sources_is_decoded_by_any_of_its_elements() {
    let all: [(&str, &[&str]); 2] = [
        ("HEVC", &["avdec_h265", "libde265dec"]),
        ("AV1", &["dav1ddec", "av1dec"]),
    ];
    let check = check_sources(&all, &|e| ["libde265dec", "av1dec"].contains(&e));
    assert_eq!(
        (check.status, &*check.detail),
        (Status::Ok, "HEVC, AV1 are decoded, too")
    );
    let check = check_sources(&all, &|e| e == "av1dec");
    assert_eq!(
        (check.status, &*check.detail),
        (Status::Warn, "no decoder of HEVC")
    );
    assert_eq!(check.fix, "install gstreamer1.0-libav");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let check = check_port("RTMP port", "ingest.rtmp.listen", address);
    assert_eq!(check.status, Status::Fail);
    assert!(check.detail.contains("in use"), "{check:?}");
    assert!(check.fix.contains("ingest.rtmp.listen"), "{check:?}");
    let free = check_port(
        "RTMP port",
        "ingest.rtmp.listen",
        ([127, 0, 0, 1], 0).into(),
    );
    assert_eq!(free.status, Status::Ok);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let check = check_port("HTTP port", "serve.listen", ([192, 0, 2, 1], 0).into());
    assert_eq!(check.status, Status::Fail);
    assert!(
        check.detail.contains("no address of this machine"),
        "{check:?}"
    );
}

#[test]
fn the_store_is_what_its_probe_says() {
    assert_eq!(check_store("./data", || Ok(())).status, Status::Ok);
    let check = check_store("./data", || Err("read-only file system".to_owned()));
    assert_eq!(check.status, Status::Fail);
    assert_eq!(check.detail, "./data: read-only file system");
}

#[test]
fn the_table_lines_up_and_ends_with_a_verdict() {
    let checks = [
        Check::ok("GStreamer", "1.22.0"),
        Check::new("memory", Status::Warn, "200MiB free", "free some"),
        Check::new("RTMP port", Status::Fail, "in use", "stop it"),
    ];
    assert_eq!(
        render(&checks, false),
        "ok    GStreamer  1.22.0\n\
         warn  memory     200MiB free\n\
         \x20                → free some\n\
         FAIL  RTMP port  in use\n\
         \x20                → stop it\n\
         \n\
         This machine is not ready: 1 thing to mend.\n"
    );
    assert!(render(&checks[..1], false).ends_with("This machine is ready.\n"));
    assert!(render(&checks[..2], false).ends_with("ready; 1 thing could be better.\n"));
    assert!(render(&checks, true).contains("\x1b[1;31mFAIL\x1b[0m  RTMP port"));
    assert_eq!(render(&[], false), "\nThis machine is ready.\n");
}
