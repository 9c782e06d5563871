//! What operators are told, made of what the data plane says and what is configured.

use std::collections::HashMap;
use tandem_api::dataplane::{PolicyAction, SaStatus, Status};
use tandem_api::operator::{Interfaces, IpsecSas, KeyTerms, MapSas, Policies, PolicyReport, Sa};
use tandem_api::types::Direction;
use tandem_config::Settings;

/// The SAs of the data plane by crypto map. Maps without SAs are listed too: an operator looks for them.
#[must_use]
pub fn ipsec_sas(settings: &Settings, status: &Status, sas: Vec<SaStatus>) -> IpsecSas {
    let mut maps: Vec<MapSas> = settings
        .maps
        .iter()
        .map(|map| MapSas {
            map: map.name.clone(),
            priority: Some(map.priority),
            interface: Some(map.interface.clone()),
            local: map.local,
            peer: map.peer,
            selectors: map.selectors.clone(),
            inbound: Vec::new(),
            outbound: Vec::new(),
        })
        .collect();
    let mut index: HashMap<String, usize> =
        maps.iter().enumerate().map(|(at, map)| (map.map.clone(), at)).collect();
    for sa in sas {
        let at = *index.entry(sa.map.clone()).or_insert_with(|| {
            maps.push(MapSas {
                map: sa.map.clone(),
                priority: None,
                interface: None,
                local: sa.local,
                peer: sa.peer,
                selectors: sa.selectors.clone(),
                inbound: Vec::new(),
                outbound: Vec::new(),
            });
            maps.len() - 1
        });
        let terms = KeyTerms::at(status.term, sa.base_term);
        let list = match sa.direction {
            Direction::Inbound => &mut maps[at].inbound,
            Direction::Outbound => &mut maps[at].outbound,
        };
        list.push(Sa { status: sa, terms });
    }
    IpsecSas { role: status.role, term: status.term, maps }
}

/// Interfaces and workers.
#[must_use]
pub fn interfaces(status: Status) -> Interfaces {
    Interfaces {
        interfaces: status.interfaces.into_iter().map(Into::into).collect(),
        workers: status.workers,
    }
}

/// Policies, the one that decides first on top.
#[must_use]
pub fn policies(settings: &Settings, in_force: bool) -> Policies {
    let peers: HashMap<u32, _> = settings.maps.iter().map(|map| (map.policy, map.peer)).collect();
    let mut policies: Vec<PolicyReport> = settings
        .data_plane
        .policies
        .iter()
        .map(|policy| PolicyReport {
            priority: policy.priority,
            name: policy.name.clone(),
            selector: policy.selector,
            action: policy.action,
            peer: match policy.action {
                PolicyAction::Protect { policy } => peers.get(&policy).copied(),
                PolicyAction::Bypass | PolicyAction::Discard => None,
            },
        })
        .collect();
    policies.sort_by_key(|policy| policy.priority);
    Policies { in_force, policies }
}
