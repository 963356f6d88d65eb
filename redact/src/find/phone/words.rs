//! Words around numbers, in the languages of the corpus.

use regex::Regex;

use crate::pattern::{PatternError, compile};

/// Bytes around a number in which words count.
pub(crate) const BYTES_MAX: usize = 40;

/// Of telephones. Endings are left open where a language has many.
const PHONE: &str = concat!(
    r"(?i)(?-u:\b)(?:",
    r"t[eé]l[eé]?f?(?-u:\b)|t[eé]l[eé]?f[oó]n[a-zà-ÿ]*|t[eé]l[eé]phon[a-zà-ÿ]*|telem[oó]ve[a-zà-ÿ]*|fon(?-u:\b)",
    r"|(?:smart|i)?phones?(?-u:\b)|mobil[a-zà-ÿ]*|m[oó]vil(?:es)?(?-u:\b)|cell?(?-u:\b)|cellphone|cellular[a-zà-ÿ]*|celular[a-zà-ÿ]*",
    r"|handy[a-zà-ÿ]*|portables?(?-u:\b)|fax[a-zà-ÿ]*|whats ?app|sms(?-u:\b)|hotline|helpline|landline|durchwahl|festnetz[a-zà-ÿ]*",
    r"|call(?:s|ed|ing|back|er)?(?-u:\b)|ring(?-u:\b)|rang(?-u:\b)|dial(?:l?ed)?(?-u:\b)|reach(?:ed|able)?(?-u:\b)|text me",
    r"|anruf[a-zà-ÿ]*|ruf[a-zà-ÿ]*|r(?:ü|ue)ckruf[a-zà-ÿ]*|erreich[a-zà-ÿ]*|angerufen",
    r"|appel[a-zà-ÿ]*|rappel[a-zà-ÿ]*|joign[a-zà-ÿ]*|joindre|fixe(?-u:\b)",
    r"|ll[aá]m[a-zà-ÿ]*|fijo(?-u:\b)|chiam[a-zà-ÿ]*|richiam[a-zà-ÿ]*|fisso(?-u:\b)|recapito|lig(?:ue|ar|uem|ou|ação)(?-u:\b)|contactar?",
    r")"
);
/// Of other numbers, right before one, perhaps with "no." or "is" between.
const OTHER: &str = concat!(
    r"(?i)(?:",
    r"order|invoice|tracking|shipment|parcel|ticket|serial|account|reference|isbn|issn|ean|gtin|upc|sku|imei|iccid|booking|voucher",
    r"|customer (?:number|no|id)|member (?:number|no|id)|policy|contract|batch|version|licen[cs]e|postcode|zip code|case (?:number|no|id)",
    r"|rechnung|bestell|auftrag|sendung|paket|kundennum|kunden-?nr|artikel|serien|vertrag|konto|steuer|(?-u:\b)ust|aktenzeichen|vorgang",
    r"|charge|personalnum|mitglied|versicherung|lieferschein|beleg|kassenzeichen|material|bankleitzahl",
    r"|commande|facture|colis|suivi|dossier|num[eé]ro (?:de )?client|n° (?:de )?client|siret|siren|(?-u:\b)tva|s[eé]rie|contrat|billet|r[eé]f[eé]rence",
    r"|pedido|factura|seguimiento|env[ií]o|expediente|n[uú]mero de cliente|albar[aá]n|contrato|p[oó]liza|referencia",
    r"|ordine|fattura|spedizione|tracciamento|pratica|codice|partita iva|seriale|contratto|polizza|bolla|riferimento",
    r"|encomenda|fatura|nota fiscal|rastreio|rastreamento|processo|cnpj|cpf|ap[oó]lice|c[oó]digo|refer[eê]ncia",
    r"|(?-u:\b)(?:case|id|az|po|ref|réf|rif|lot|lote|lotto|nif|cif|nie|dni|blz|plz|vin|rma|pin|tan|part|item|model|seat|no|nr)(?-u:\b)|(?-u:\b)n[°º]|№",
    r")[a-zà-ÿ]{0,14}[ .:#=°º(-]{0,4}",
    r"(?:(?:number|num|n[uú]m|n[uú]mero|num[eé]ro|numero|nummer|id|no|nr|n[°º]|n\.|code|is|ist|est|es|è|é)[ .:#=°º-]{0,3}){0,2}$"
);
/// "Tel. no." and "Telefon-Nr." end with words of [`OTHER`].
const PHONE_NUMBER: &str = r"(?i)(?:phone|telefon|t[eé]l|tel[eé]fono|telefone|mobile?|m[oó]vil|handy|fax|cell|hotline|contact|ruf)[. -]{0,3}(?:no|nr|n[°ºo]|id)[ .:°º]{0,3}$";
/// Units behind an amount.
const UNIT: &str =
    r"(?i)^[ \x{a0}\x{202f}]?(?:[€$£%]|(?:eur|euros?|usd|chf|gbp|brl|km|kg|kwh|mb|gb|stück|units|pcs)(?-u:\b))";
/// A word in parentheses behind a number.
const BEHIND: &str = r"(?i)^[ ]?[(\[][ ]?(?:tel|mobil|handy|cell|fax|portable|m[oó]vil|fijo|fixe|fisso|privat|phone|whatsapp|telem[oó]vel|celular)";

#[derive(Debug)]
pub(crate) struct Words {
    phone: Regex,
    other: Regex,
    phone_number: Regex,
    unit: Regex,
    behind: Regex,
}

impl Words {
    pub(crate) fn new() -> Result<Self, PatternError> {
        Ok(Self {
            phone: compile("words of telephones", PHONE)?,
            other: compile("words of other numbers", OTHER)?,
            phone_number: compile("words of telephone numbers", PHONE_NUMBER)?,
            unit: compile("units", UNIT)?,
            behind: compile("words behind telephones", BEHIND)?,
        })
    }

    /// Whether what stands before a number says that it is of a telephone.
    pub(crate) fn is_phone(&self, ahead: &str) -> bool {
        self.phone.is_match(ahead)
    }

    /// Whether what stands behind a number says so.
    pub(crate) fn is_phone_behind(&self, behind: &str) -> bool {
        self.behind.is_match(behind)
    }

    /// Whether what stands before a number says that it is of something else.
    pub(crate) fn is_other(&self, ahead: &str) -> bool {
        self.other.is_match(ahead) && !self.phone_number.is_match(ahead)
    }

    /// Whether what stands behind a number says that it is an amount.
    pub(crate) fn is_amount(&self, behind: &str) -> bool {
        self.unit.is_match(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_six_languages() {
        let words = Words::new().expect("patterns");
        for ahead in [
            "Tel.: ",
            "phone ",
            "Telefonnummer: ",
            "N° de téléphone : ",
            "al teléfono ",
            "cellulare ",
            "meu telemóvel é ",
            "call us on ",
        ] {
            assert!(words.is_phone(ahead) && !words.is_other(ahead), "{ahead}");
        }
        for ahead in [
            "order no. ",
            "Bestellnr.: ",
            "n° de commande ",
            "pedido núm. ",
            "fattura n. ",
            "código de rastreio: ",
            "Order #",
            "Az.: ",
        ] {
            assert!(words.is_other(ahead), "{ahead}");
        }
        for ahead in ["Telefon-Nr.: ", "Tel. no. ", "order it from ", "Kunden unter "] {
            assert!(!words.is_other(ahead), "{ahead}");
        }
        assert!(words.is_amount(" EUR") && words.is_amount("€") && !words.is_amount(" europe"));
    }
}
