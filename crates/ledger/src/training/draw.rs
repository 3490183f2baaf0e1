//! What the beacon decides: who is audited, by whom, at which steps, and who proposes.

use r3mes_types::training::Member;
use r3mes_types::{Address, Hash, Hasher, Ppm};

use super::state::RoundId;

/// Numbers drawn from the beacon for one purpose. The same mix gives the same numbers everywhere.
pub(super) struct Draw {
    seed: Hash,
    drawn: u64,
}

impl Draw {
    /// Numbers for one purpose in one round; `subject` is the address concerned, or nothing.
    pub(super) fn new(mix: &Hash, id: RoundId, purpose: &str, subject: &[u8]) -> Self {
        let seed = Hasher::new("r3mes training draw v1")
            .part(mix.as_ref())
            .number(id.run)
            .number(u64::from(id.round))
            .part(purpose.as_bytes())
            .part(subject)
            .finish();
        Self { seed, drawn: 0 }
    }

    /// A number below `bound`; 0 if that is 0. Its bias is below `bound / 2^64`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let hash = Hasher::new("r3mes training draw number v1")
            .part(self.seed.as_ref())
            .number(self.drawn)
            .finish();
        self.drawn += 1;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_ref()[..8]);
        ((u128::from(u64::from_le_bytes(bytes)) * u128::from(bound)) >> 64) as u64
    }

    /// `count` different items in drawn order; all of them if there are fewer.
    pub(super) fn choose<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        let count = count.min(items.len());
        for place in 0..count {
            let rest = (items.len() - place) as u64;
            let chosen = place + self.below(rest) as usize;
            items.swap(place, chosen);
        }
        items.truncate(count);
        items
    }

    /// `count` different validators, each time in proportion to power, so that those who hold a share
    /// of the power hold that share of every seat, however many accounts they split it over.
    pub(super) fn choose_by_power(&mut self, members: &[Member], count: usize) -> Vec<Address> {
        let mut left = members.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let power: u64 = left.iter().map(|member| member.power).sum();
            if power == 0 {
                break;
            }
            let mut point = self.below(power);
            let place = left
                .iter()
                .position(|member| match point.checked_sub(member.power) {
                    Some(rest) => {
                        point = rest;
                        false
                    }
                    None => true,
                })
                .expect("the point is below the sum of all powers");
            chosen.push(left.remove(place).validator);
        }
        chosen
    }
}

/// Whether a miner is audited.
pub(super) fn is_audited(mix: &Hash, id: RoundId, miner: &Address, share: Ppm) -> bool {
    let drawn = Draw::new(mix, id, "audit", miner.as_ref()).below(u64::from(Ppm::ONE.millionths()));
    drawn < u64::from(share.millionths())
}

/// The panel of an audited miner, which is never on its own. Ascending by address.
pub(super) fn panel(
    mix: &Hash,
    id: RoundId,
    miner: &Address,
    members: &[Member],
    m: u32,
) -> Vec<Address> {
    let others: Vec<Member> = members
        .iter()
        .filter(|member| member.validator != *miner)
        .cloned()
        .collect();
    let mut panel =
        Draw::new(mix, id, "panel", miner.as_ref()).choose_by_power(&others, m as usize);
    panel.sort();
    panel
}

/// The steps that are re-run: `drawn` of the `steps` optimizer steps, ascending, and the packaging,
/// which counts as step `steps`.
pub(super) fn steps(mix: &Hash, id: RoundId, miner: &Address, steps: u32, drawn: u32) -> Vec<u32> {
    let all: Vec<u32> = (0..steps).collect();
    let mut chosen = Draw::new(mix, id, "steps", miner.as_ref()).choose(&all, drawn as usize);
    chosen.sort_unstable();
    chosen.push(steps);
    chosen
}

/// The proposer and its backups, in order.
pub(super) fn proposers(
    mix: &Hash,
    id: RoundId,
    candidates: &[Address],
    count: u32,
) -> Vec<Address> {
    Draw::new(mix, id, "proposers", &[]).choose(candidates, count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RoundId = RoundId { run: 1, round: 2 };

    fn address(n: u8) -> Address {
        Address::from([n; 20])
    }

    fn mixes() -> impl Iterator<Item = Hash> {
        (0..20_000u32).map(|n| Hash::of(&n.to_le_bytes()))
    }

    #[test]
    fn the_share_of_audited_miners_is_the_parameter() {
        let share = Ppm::percent(30);
        let audited = mixes()
            .filter(|mix| is_audited(mix, ID, &address(1), share))
            .count();
        // 20,000 draws of 0.3: one sigma is 65.
        assert!((5_800..6_200).contains(&audited), "{audited}");
        assert!(
            mixes()
                .take(100)
                .all(|mix| is_audited(&mix, ID, &address(1), Ppm::ONE))
        );
        assert!(
            !mixes()
                .take(100)
                .any(|mix| is_audited(&mix, ID, &address(1), Ppm::ZERO))
        );
    }

    #[test]
    fn seats_go_by_power_and_never_to_the_miner_itself() {
        let members: Vec<Member> = (1..=4)
            .map(|n| Member {
                validator: address(n),
                power: u64::from(n) * 10,
            })
            .collect();
        let mut seats = [0u32; 5];
        for mix in mixes() {
            let panel = panel(&mix, ID, &address(2), &members, 1);
            assert_eq!(panel.len(), 1);
            seats[usize::from(panel[0].as_ref()[0])] += 1;
        }
        assert_eq!(seats[2], 0);
        // Of 80: 10, 30 and 40. One sigma is at most 71.
        for (validator, expected) in [(1, 2_500), (3, 7_500), (4, 10_000)] {
            assert!(seats[validator].abs_diff(expected) < 300, "{seats:?}");
        }
        let all = panel(&Hash::of(b"mix"), ID, &address(9), &members, 16);
        assert_eq!(all, (1..=4).map(address).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_is_drawn_equally_often_and_the_packaging_always() {
        let mut counts = [0u32; 9];
        for mix in mixes() {
            let drawn = steps(&mix, ID, &address(1), 8, 2);
            assert_eq!(drawn.len(), 3);
            assert!(drawn.is_sorted() && drawn[0] != drawn[1]);
            drawn.iter().for_each(|&step| counts[step as usize] += 1);
        }
        assert_eq!(counts[8], 20_000);
        // 20,000 draws of 1/4: one sigma is 61.
        assert!(
            counts[..8].iter().all(|count| count.abs_diff(5_000) < 250),
            "{counts:?}"
        );
    }

    #[test]
    fn the_draws_are_pinned() {
        let mix = Hash::of(b"mix");
        let numbers: Vec<u64> = {
            let mut draw = Draw::new(&mix, ID, "test", &[]);
            (0..4).map(|_| draw.below(1_000)).collect()
        };
        assert_eq!(numbers, [164, 873, 112, 619]);
    }
}
