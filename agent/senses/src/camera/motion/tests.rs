//! The gate on made-up rooms: at five pictures a second, with a sensor's noise.

use outpost_agent_core::config::Area;

use super::*;

/// Shelves and shadows: something to see.
fn room(x: usize, y: usize) -> f32 {
    60.0 + 50.0 * ((x / 7 + y / 9) % 3) as f32 + (x as f32 * 0.7).sin() * 10.0
}

/// A person of a size and at a place, in cells.
fn person(at: usize) -> impl Fn(usize, usize) -> f32 {
    move |x, y| if (at..at + 8).contains(&x) && (16..44).contains(&y) { 20.0 } else { room(x, y) }
}

/// A gate fed with five pictures a second.
struct Feed {
    scene: MotionDetector,
    start: Instant,
    count: u32,
    noise: u32,
}

impl Feed {
    fn new(edit: impl FnOnce(&mut MotionConfig)) -> Self {
        let mut config = MotionConfig::default();
        edit(&mut config);
        Self { scene: MotionDetector::new(config), start: Instant::now(), count: 0, noise: 1 }
    }

    /// The verdict on one more picture.
    fn see(&mut self, scene: impl Fn(usize, usize) -> f32) -> Verdict {
        let noise = std::cell::Cell::new(self.noise);
        let noisy = |x, y| {
            noise.set(noise.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
            scene(x, y) + (noise.get() >> 24) as f32 / 64.0 - 2.0
        };
        let thumbnail = Thumbnail::of(noisy);
        self.noise = noise.get();
        let now = self.start + self.count * Duration::from_millis(200);
        self.count += 1;
        self.scene.see(thumbnail, now)
    }

    /// The looks in so many seconds of a scene that may change with the picture's number.
    fn looks(&mut self, seconds: u32, scene: impl Fn(u32, usize, usize) -> f32) -> usize {
        (0..seconds * 5)
            .filter(|frame| self.see(|x, y| scene(*frame, x, y)) == Verdict::Look)
            .count()
    }
}

fn watching_the_room() -> Feed {
    let mut feed = Feed::new(|_| {});
    assert_eq!(feed.see(room), Verdict::Look, "the first picture");
    assert_eq!(feed.looks(10, |_, x, y| room(x, y)), 0, "nothing happens");
    feed
}

#[test]
fn a_still_scene_is_looked_at_once_and_daylight_is_no_change() {
    let mut feed = watching_the_room();
    let dusk = |frame: u32, x, y| room(x, y) * (1.0 - frame as f32 / 2000.0);
    assert_eq!(feed.looks(200, dusk), 0);
}

#[test]
fn something_new_is_looked_at_once_when_it_rests() {
    let mut feed = watching_the_room();
    let walks = |frame: u32, x, y| person(frame as usize * 4)(x, y);
    assert_eq!(feed.looks(1, walks), 0, "it moves");
    assert_eq!(feed.see(person(16)), Verdict::Look, "it stands");
    assert_eq!(feed.looks(60, |_, x, y| person(16)(x, y)), 0, "it stays");
    assert_eq!(feed.looks(10, |_, x, y| room(x, y)), 1, "it is gone");
}

#[test]
fn what_never_rests_is_looked_at_all_the_same_but_not_for_ever() {
    let mut feed = watching_the_room();
    let paces = |frame: u32, x, y| person((frame as usize * 5) % 50)(x, y);
    let first = feed.looks(20, paces);
    assert!((3..=5).contains(&first), "{first} looks in 20 s");
    let later = feed.looks(120, paces);
    assert!((2..=6).contains(&later), "{later} looks in 2 min");
}

#[test]
fn a_light_that_is_switched_is_no_alarm() {
    let mut feed = watching_the_room();
    for light in [0.5, 1.4, 0.7] {
        let lit = |_: u32, x: usize, y: usize| (room(x, y) * light).min(255.0);
        assert_eq!(feed.looks(20, lit), 0, "light {light}");
    }
    let dark = |_: u32, _: usize, _: usize| 4.0;
    assert_eq!(feed.looks(20, dark), 0, "dark");
    assert_eq!(feed.looks(20, |_, x, y| room(x, y) * 0.7), 0, "as before");
    // In the new light a person is seen as ever.
    assert_eq!(feed.looks(5, |_, x, y| person(30)(x, y) * 0.7), 1);
}

#[test]
fn grey_pictures_of_a_camera_that_comes_back_are_no_alarm_but_what_changed_meanwhile_is() {
    let mut feed = watching_the_room();
    for _ in 0..10 {
        assert_eq!(feed.see(|_, _| 128.0), Verdict::Blank);
    }
    assert_eq!(feed.looks(10, |_, x, y| room(x, y)), 0);
    assert_eq!(feed.see(|_, _| 128.0), Verdict::Blank);
    assert_eq!(feed.looks(10, |_, x, y| person(30)(x, y)), 1);
}

#[test]
fn masked_parts_do_not_count_and_all_others_do() {
    let tree = Area::from([0.4, 0.0, 0.25, 1.0]);
    let mut feed = Feed::new(|config| config.ignore = vec![tree]);
    feed.see(room);
    assert_eq!(feed.looks(10, |frame, x, y| person(30 + frame as usize % 3)(x, y)), 0);
    assert_eq!(feed.looks(5, |_, x, y| person(5)(x, y)), 1);
}

#[test]
fn a_change_within_the_interval_is_looked_at_after_it() {
    let mut feed = Feed::new(|_| {});
    feed.see(room);
    feed.see(person(16));
    let verdicts: Vec<Verdict> = (0..12).map(|_| feed.see(person(16))).collect();
    assert_eq!(verdicts[0], Verdict::TooSoon);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Look).count(), 1);
}
