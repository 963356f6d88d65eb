"""The ten experts: adapter folder -> CLINC150 domain."""

DOMAINS = {
    "banking": "banking",
    "travel": "travel",
    "kitchen": "kitchen_and_dining",
    "credit-cards": "credit_cards",
    "home": "home",
    "car": "auto_and_commute",
    "utility": "utility",
    "work": "work",
    "small-talk": "small_talk",
    "meta": "meta",
}
