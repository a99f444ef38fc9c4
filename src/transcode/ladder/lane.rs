//! Shares encoder threads out among rungs.
//!
//! Enters: what each rung costs, best first
//! Leaves: the lane of each; rungs of one lane are encoded one after another on one thread
//! Never:  threads
//! Time:   costs in CPU microseconds per second
//! Spec:   none

/// How much of a core the rungs of a shared lane may take together, in CPU microseconds per second.
/// Two fifths: a machine of half the speed that the costs were measured on still keeps up.
///
/// A thread for each small rung costs more than it gives: at the pace of the clock every frame
/// wakes all of them, and they move between cores with cold caches. Measured with 720p, 480p and 360p
/// on two cores, two lanes take 5 % less CPU than three.
const SHARED_LANE_US: u64 = 400_000;

/// The lane of each of the rungs that cost `costs_us`.
pub(super) fn assign(costs_us: &[u64]) -> Vec<u32> {
    let mut loads: Vec<u64> = Vec::new();
    let lane_of = |cost: &u64| {
        let fits = |load: &u64| load.saturating_add(*cost) <= SHARED_LANE_US;
        let open = loads.iter().enumerate().filter(|(_, load)| fits(load));
        let lane = match open.min_by_key(|(_, load)| **load) {
            Some((lane, _)) => lane,
            None => {
                loads.push(0);
                loads.len() - 1
            }
        };
        if let Some(load) = loads.get_mut(lane) {
            *load = load.saturating_add(*cost);
        }
        u32::try_from(lane).unwrap_or(u32::MAX)
    };
    costs_us.iter().map(lane_of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_rungs_share_and_large_ones_do_not() {
        for (costs, lanes) in [
            (vec![250_000, 190_000, 145_000, 110_000], vec![0, 1, 1, 0]),
            (vec![900_000, 450_000, 100_000, 100_000], vec![0, 1, 2, 2]),
            (vec![100_000], vec![0]),
            (vec![], vec![]),
        ] {
            assert_eq!(assign(&costs), lanes, "{costs:?}");
        }
    }

    proptest! {
        #[test]
        fn shared_lane_is_never_overloaded(costs in prop::collection::vec(0_u64..1_000_000, 0..12)) {
            let lanes = assign(&costs);
            prop_assert_eq!(lanes.len(), costs.len());
            for lane in 0..=lanes.iter().copied().max().unwrap_or(0) {
                let of_lane = || costs.iter().zip(&lanes).filter(|(_, l)| **l == lane);
                let load: u64 = of_lane().map(|(cost, _)| cost).sum();
                prop_assert!(load <= SHARED_LANE_US || of_lane().count() == 1);
            }
        }
    }
}
