//! What ffmpeg says about the output.

use headwater::codec::h264;
use headwater::codec::video::Dimensions;
use headwater::media::{CodecConfig, Sample};

use super::media::{FILM, ffmpeg};
use super::run::Made;

/// Peak signal to noise ratios in decibels.
#[derive(Debug)]
pub(crate) struct Psnr {
    pub(crate) y: f64,
    pub(crate) u: f64,
    pub(crate) v: f64,
}

/// Writes a rendition in a form that ffmpeg reads, and says which.
fn written(made: &Made, index: usize) -> (Vec<u8>, &'static str) {
    let samples = &made.samples[index];
    match &made.renditions[index].codec {
        CodecConfig::H264(config) => (annex_b(config, samples), "h264"),
        CodecConfig::Vp9(config) => (ivf(b"VP90", config.dimensions, samples), "ivf"),
        CodecConfig::Av1(config) => (ivf(b"AV01", config.dimensions, samples), "ivf"),
        CodecConfig::Aac(config) => (adts(&config.asc, samples), "aac"),
        CodecConfig::Opus(_) => (ogg(samples), "ogg"),
        CodecConfig::Hevc(_) => unreachable!("no ladder makes HEVC"),
    }
}

fn annex_b(config: &h264::Config, samples: &[Sample]) -> Vec<u8> {
    let mut out = Vec::new();
    let sets = config.parameter_sets().expect("valid");
    for set in sets.sps.iter().chain(&sets.pps) {
        out.extend([0, 0, 0, 1]);
        out.extend_from_slice(set);
    }
    for sample in samples {
        let mut rest = &sample.data[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            out.extend([0, 0, 0, 1]);
            out.extend_from_slice(&tail[..length]);
            rest = &tail[length..];
        }
    }
    out
}

fn ivf(fourcc: &[u8; 4], size: Dimensions, samples: &[Sample]) -> Vec<u8> {
    let mut out = b"DKIF\0\0\x20\0".to_vec();
    out.extend_from_slice(fourcc);
    out.extend(u16::try_from(size.width).expect("small").to_le_bytes());
    out.extend(u16::try_from(size.height).expect("small").to_le_bytes());
    out.extend(30_u32.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend([0; 8]);
    for (n, sample) in (0_u64..).zip(samples) {
        out.extend(
            u32::try_from(sample.data.len())
                .expect("small")
                .to_le_bytes(),
        );
        out.extend(n.to_le_bytes());
        out.extend_from_slice(&sample.data);
    }
    out
}

fn adts(asc: &[u8], samples: &[Sample]) -> Vec<u8> {
    let (index, channels) = ((asc[0] & 7) << 1 | asc[1] >> 7, asc[1] >> 3 & 15);
    let mut out = Vec::new();
    for sample in samples {
        let length = u16::try_from(sample.data.len() + 7).expect("small");
        let [high, low] = (length << 5).to_be_bytes();
        let top = u8::try_from(length >> 11).expect("two bits");
        let [high, low] = [high, low | 0x1f];
        out.extend([0xff, 0xf1, 0x40 | index << 2 | channels >> 2]);
        out.extend([(channels & 3) << 6 | top, high, low, 0xfc]);
        out.extend_from_slice(&sample.data);
    }
    out
}

/// One Ogg page per packet: the least that is valid, with no samples to be skipped.
fn ogg(samples: &[Sample]) -> Vec<u8> {
    let mut out = Vec::new();
    let head = b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0";
    page(&mut out, 2, 0, 0, head);
    page(&mut out, 0, 0, 1, b"OpusTags\0\0\0\0\0\0\0\0");
    for (n, sample) in (0_u32..).zip(samples) {
        page(&mut out, 0, u64::from(n + 1) * 960, n + 2, &sample.data);
    }
    out
}

fn page(out: &mut Vec<u8>, kind: u8, granule: u64, number: u32, packet: &[u8]) {
    let start = out.len();
    out.extend_from_slice(b"OggS\0");
    out.push(kind);
    out.extend(granule.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out.extend(number.to_le_bytes());
    out.extend([0; 4]);
    let laces = packet.len() / 255 + 1;
    out.push(u8::try_from(laces).expect("small"));
    out.extend(std::iter::repeat_n(255, laces - 1));
    out.push(u8::try_from(packet.len() % 255).expect("below 255"));
    out.extend_from_slice(packet);
    let mut crc = 0_u32;
    for byte in &out[start..] {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
        }
    }
    out[start + 22..start + 26].copy_from_slice(&crc.to_le_bytes());
}

/// Gives a rendition to ffmpeg, then `args`; what ffmpeg writes to stdout.
fn through_ffmpeg(made: &Made, index: usize, args: &[&str]) -> Vec<u8> {
    let (bytes, format) = written(made, index);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rendition");
    std::fs::write(&path, bytes).expect("written");
    let mut all = vec!["-f", format, "-i", path.to_str().expect("text")];
    all.extend(args);
    ffmpeg(&all)
}

/// ffmpeg decodes every frame of a rendition without one word of complaint.
pub(crate) fn decodes_cleanly(made: &Made, index: usize) {
    let name = &made.renditions[index].name;
    if made.renditions[index].frame_rate.is_none() {
        let pcm = through_ffmpeg(made, index, &["-f", "s16le", "-ac", "1", "-"]);
        let frame = usize::try_from(made.samples[index][0].duration.get()).expect("small");
        assert_eq!(pcm.len() / 2, made.samples[index].len() * frame, "{name}");
        return;
    }
    let args = [
        "-fps_mode",
        "passthrough",
        "-vf",
        "scale=16:16,format=gray",
        "-f",
        "rawvideo",
        "-",
    ];
    let frames = through_ffmpeg(made, index, &args).len() / 256;
    assert_eq!(frames, made.samples[index].len(), "{name}");
}

/// How near a rendition is to the film scaled by ffmpeg. The rendition begins with the film.
pub(crate) fn psnr_against_the_film(made: &Made, index: usize, size: Dimensions) -> Psnr {
    let frames = made.samples[index].len().to_string();
    let (width, height) = (size.width as usize, size.height as usize);
    let ours = through_ffmpeg(made, index, &["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]);
    let scale = format!("scale={width}:{height}:flags=bilinear");
    let theirs = ffmpeg(&[
        "-i",
        FILM,
        "-frames:v",
        &frames,
        "-vf",
        &scale,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-",
    ]);
    assert_eq!(ours.len(), theirs.len());
    let (luma, chroma) = (width * height, width * height / 4);
    let mut errors = [0_u64; 3];
    let whole = luma + 2 * chroma;
    for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let plane = match at % whole {
            p if p < luma => 0,
            p if p < luma + chroma => 1,
            _ => 2,
        };
        errors[plane] += u64::from(a.abs_diff(*b)).pow(2);
    }
    let frames = ours.len() / whole;
    let db = |plane: usize, pixels: usize| {
        let mean = errors[plane] as f64 / (pixels * frames) as f64;
        10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
    };
    Psnr {
        y: db(0, luma),
        u: db(1, chroma),
        v: db(2, chroma),
    }
}

/// The share of a rendition's pixels that differ from those above and below, which are alike: the teeth of a comb,
/// in millionths.
pub(crate) fn comb(made: &Made, index: usize, size: Dimensions) -> usize {
    let args = ["-vf", "format=gray", "-f", "rawvideo", "-"];
    let pictures = through_ffmpeg(made, index, &args);
    let (width, height) = (size.width as usize, size.height as usize);
    let mut teeth = 0;
    for picture in pictures.chunks_exact(width * height) {
        for at in width..width * (height - 1) {
            let [above, here, below] = [at - width, at, at + width].map(|at| picture[at]);
            let stands_out = here.abs_diff(above) > 60 && here.abs_diff(below) > 60;
            teeth += usize::from(stands_out && above.abs_diff(below) < 20);
        }
    }
    teeth * 1_000_000 / pictures.len()
}

/// Of each picture of a rendition but the first, whether it is another one than that before it.
pub(crate) fn changes(made: &Made, index: usize) -> Vec<bool> {
    let args = [
        "-vf",
        "scale=64:48:flags=area,format=gray",
        "-f",
        "rawvideo",
        "-",
    ];
    let pictures = through_ffmpeg(made, index, &args);
    let pictures: Vec<&[u8]> = pictures.chunks_exact(64 * 48).collect();
    let apart = |pair: &[&[u8]]| {
        let pixels = pair[0].iter().zip(pair[1]);
        pixels.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    pictures.windows(2).map(|pair| apart(pair) > 300).collect()
}

/// The mean magnitude of a rendition's sound, of 32768.
pub(crate) fn loudness(made: &Made, index: usize) -> f64 {
    let pcm = through_ffmpeg(made, index, &["-f", "s16le", "-ac", "1", "-"]);
    let each = pcm.chunks_exact(2);
    let sum: u64 = each
        .map(|s| u64::from(i16::from_le_bytes([s[0], s[1]]).unsigned_abs()))
        .sum();
    sum as f64 / (pcm.len() / 2) as f64
}

/// By how many milliseconds the beeps of a flash-and-beep clip come after their flashes, in the mean.
pub(crate) fn beep_after_flash_ms(made: &Made) -> f64 {
    let args = [
        "-fps_mode",
        "passthrough",
        "-vf",
        "scale=16:16,format=gray",
        "-f",
        "rawvideo",
        "-",
    ];
    let pictures = through_ffmpeg(made, 0, &args);
    let bright: Vec<bool> = pictures.chunks(256).map(|frame| frame[136] > 128).collect();
    let audio = made.renditions.len() - 1;
    let pcm = through_ffmpeg(made, audio, &["-f", "s16le", "-ac", "1", "-"]);
    let loud: Vec<bool> = pcm
        .chunks_exact(2)
        .map(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs() > 6_000)
        .collect();
    let scale = f64::from(made.renditions[audio].timescale.get());
    let from = made.samples[audio][0].pts.get() as f64 / scale;
    let mut shown: Vec<i64> = made.samples[0].iter().map(|s| s.pts.get()).collect();
    shown.sort_unstable();
    let mut offsets = Vec::new();
    for second in 1..4 {
        let whole = (made.clip_ms / 1_000 + second) as f64 + 0.5;
        let flash =
            (0..bright.len()).find(|n| bright[*n] && shown[*n] as f64 / 90_000.0 > whole - 0.3);
        let flash = shown[flash.expect("a flash")] as f64 / 90_000.0;
        let at = |n: &usize| from + *n as f64 / scale;
        let heard = |n: &usize| loud[*n] && at(n) > whole - 0.3;
        let beep = at(&(0..loud.len()).find(heard).expect("a beep"));
        offsets.push((beep - flash) * 1_000.0);
    }
    offsets.iter().sum::<f64>() / offsets.len() as f64
}
