//! CPU of a transcoded broadcast, server side and worker, against one ffmpeg that makes the same
//! ladder with the same encoder settings: 20 s of 720p30 to 720p, 480p and 360p, AAC at 128 kbit/s.
//!
//! Prints both and their ratio. User and system time of whole process trees, so a busy machine
//! changes little.

#[expect(dead_code, reason = "shared with the tests, which use the rest")]
#[path = "../tests/transcode/media.rs"]
mod media;

use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;

use headwater::id::SegmentNumber;
use headwater::time::Grid;
use headwater::transcode::ladder::Machine;
use headwater::transcode::template::{RungSize, Template};
use headwater::transcode::{Options, Output, Transcoder};

use self::media::{Clip, FILM, Item, ffmpeg};

/// Runs of each, alternating; the least counts.
const RUNS: usize = 3;

/// The clock ticks of user and system time that this process and its ended children have used.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let times = fields.skip(11).take(4);
    times
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

fn measured(work: impl FnOnce()) -> u64 {
    let before = cpu_ticks();
    work();
    cpu_ticks() - before
}

fn ours(clip: &Clip) {
    let mut template = Template::named("auto").expect("shipped");
    let wanted = [720, 480, 360].map(RungSize::Lines);
    let rungs = &mut template.video.rungs;
    rungs.retain(|rung| rung.max_fps <= 30 && wanted.contains(&rung.size));
    let options = Options {
        stream: "bench".parse().expect("legal"),
        template,
        machine: Machine { cores: 5 },
        grid: Grid::new(NonZeroU32::new(2_000).expect("not zero")),
        part_ms: 333,
        first: SegmentNumber::new(0),
        program: PathBuf::from(env!("CARGO_BIN_EXE_headwater")),
        absence: headwater::transcode::Absence::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (transcoder, mut outputs) = Transcoder::start(options);
        let items = clip.at(clip.start_of_a_segment());
        tokio::spawn(async move {
            for item in items {
                let sent = match item {
                    Item::Track(info) => transcoder.track(info).await,
                    Item::Sample(track, sample) => transcoder.sample(track, sample).await,
                };
                sent.expect("alive");
            }
        });
        let mut frames = [0_u32; 4];
        while let Some(output) = outputs.next().await {
            match output {
                Output::Sample { rendition, .. } => frames[rendition] += 1,
                Output::Opened { .. }
                | Output::Cut { .. }
                | Output::Period { .. }
                | Output::Conducted(_)
                | Output::Load(_)
                | Output::GivenUp(_)
                | Output::Rest { .. }
                | Output::Restarted { .. }
                | Output::Finished
                | Output::Failed(_) => {}
            }
        }
        assert_eq!(frames[..3], [600; 3]);
    });
}

fn theirs(source: &str, target: &str) {
    let graph = "[0:v]split=3[a][b][c];[b]scale=856:480:flags=bilinear[d];\
                 [c]scale=640:360:flags=bilinear[e]";
    let mut args = vec!["-i", source, "-filter_complex", graph];
    args.extend(["-map", "[a]", "-map", "[d]", "-map", "[e]", "-map", "0:a"]);
    args.extend([
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-tune",
        "zerolatency",
    ]);
    args.extend([
        "-threads:v",
        "1",
        "-force_key_frames",
        "expr:gte(t,n_forced*2)",
    ]);
    args.extend([
        "-x264-params",
        "scenecut=0:open-gop=0:keyint=240:sliced-threads=0",
    ]);
    let rates = [("2800k", 0), ("1300k", 1), ("750k", 2)];
    let options: Vec<[String; 2]> = rates
        .iter()
        .flat_map(|(rate, index)| {
            ["b", "maxrate", "bufsize"]
                .map(|option| [format!("-{option}:v:{index}"), (*rate).to_owned()])
        })
        .collect();
    args.extend(options.iter().flatten().map(String::as_str));
    args.extend([
        "-c:a",
        "aac",
        "-aac_coder",
        "fast",
        "-b:a",
        "128k",
        "-y",
        target,
    ]);
    ffmpeg(&args);
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (source, target) = (path("source.mp4"), path("ladder.mkv"));
    ffmpeg(&[
        "-stream_loop",
        "1",
        "-i",
        FILM,
        "-t",
        "20",
        "-c",
        "copy",
        "-y",
        &source,
    ]);
    let mut clip = Clip::film(12);
    clip.append(&Clip::film(8));
    let mut least = [u64::MAX; 2];
    for _ in 0..RUNS {
        least[0] = least[0].min(measured(|| ours(&clip)));
        least[1] = least[1].min(measured(|| theirs(&source, &target)));
    }
    let [ours, theirs] = least;
    let percent = ours * 100 / theirs.max(1);
    let line = format!(
        "ladder 720p30: headwater {}.{:02} s, ffmpeg {}.{:02} s of CPU for 20 s, ratio {}.{:02}",
        ours / 100,
        ours % 100,
        theirs / 100,
        theirs % 100,
        percent / 100,
        percent % 100,
    );
    writeln!(std::io::stdout(), "{line}").expect("stdout");
}
