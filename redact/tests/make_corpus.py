#!/usr/bin/env python3
"""Writes corpus.jsonl beside this file: 500 made-up texts in six languages, and which spans of them are personal data or secrets.

The texts and their spans come from templates and from the rules by which such numbers are made (checksums, lengths, ways to write
them), not from the detector that they test. Nothing is real: domains are those of RFC 2606, IP addresses those of RFC 5737 and RFC
3849 or private ones, telephone numbers lie in ranges kept for fiction where a country has one, accounts and cards are random with
a right checksum. The seed is fixed, so the file is always the same.

A span is given as [kind, first byte, end byte] of the UTF-8 text. Starts of well-known tokens are escaped in the JSON, so that no
search for leaked keys stops at the file.
"""

import json
import pathlib
import random

R = random.Random(20240613)
LANGUAGES = ["en", "de", "fr", "es", "it", "pt"]
PER_LANGUAGE = 78  # and 32 logs and configurations


def digits(n):
    return "".join(R.choice("0123456789") for _ in range(n))


def chars(n, alphabet):
    return "".join(R.choice(alphabet) for _ in range(n))


LOWER = "abcdefghijklmnopqrstuvwxyz"
ALNUM = LOWER + LOWER.upper() + "0123456789"
URLSAFE = ALNUM + "-_"

# --- values -------------------------------------------------------------------------------------------------------------------

NAMES = {
    "en": ["Oliver Hart", "Grace O'Neill", "Maya Patel", "Tom Fielding", "Ruth Adeyemi"],
    "de": ["Jürgen Krämer", "Sabine Voß", "Mehmet Yıldız", "Lena Groß", "Uwe Petersen"],
    "fr": ["Élodie Marchand", "Jean-Luc Perrin", "Amina Benali", "Chloé Faure", "Rémi Garnier"],
    "es": ["Lucía Fernández", "Íñigo Arana", "Marta Gil", "José Luis Peña", "Nuria Vidal"],
    "it": ["Giulia Rossi", "Marco De Luca", "Chiara Fontana", "Niccolò Serra", "Elena Conti"],
    "pt": ["João Almeida", "Inês Carvalho", "Rui Teixeira", "Beatriz Nunes", "Luís Araújo"],
}
ASCII = str.maketrans("äöüßéèêëàâçñíóúáãõôıòìùÉÍ", "aouseeeeaacniouaaooioiuEI")
HOSTS = ["example.com", "example.org", "example.net", "mail.example.com", "shop.example.org", "hr.intern.example.net", "acme.example"]


def email(lang):
    first, last = R.choice(NAMES[lang]).translate(ASCII).lower().replace("'", "").split(" ", 1)
    last = last.replace(" ", "")
    style = R.random()
    if style < 0.35:
        local = f"{first}.{last}"
    elif style < 0.5:
        local = f"{first[0]}{last}"
    elif style < 0.6:
        local = f"{first}_{last}{R.randint(1, 99)}"
    elif style < 0.7:
        local = f"{first}+{R.choice(['invoices', 'shop', 'news2024'])}"
    elif style < 0.8:
        local = R.choice(["info", "support", "buchhaltung", "rh", "ventas", "ordini"])
    else:
        local = f"{first}-{last}".title()
    host = R.choice(HOSTS)
    if style > 0.95:
        host = host.upper()
    return f"{local}@{host}"


def phone(lang):
    """A number as people of a country write it, and whether it needs a word to be known as one."""
    d = digits
    forms = {
        "en": [
            (f"+44 20 7946 0{d(3)}", False), (f"020 7946 0{d(3)}", False), (f"07700 900{d(3)}", False), (f"+44 (0)161 496 0{d(3)}", False),
            (f"(212) 555-01{d(2)}", False), (f"415-555-01{d(2)}", False), (f"+1 303 555 01{d(2)}", False), (f"+1-617-555-01{d(2)}", False),
            (f"206.555.01{d(2)}", False), (f"07700900{d(3)}", True), (f"555-01{d(2)}", True), (f"1-800-555-01{d(2)}", False),
            (f"312 555 01{d(2)}", True), (f"+447700900{d(3)}", False),
        ],
        "de": [
            (f"030 23125 {d(3)}", False), (f"+49 30 23125{d(3)}", False), (f"0171 39200{d(2)}", False), (f"(089) 99998-{d(3)}", False),
            (f"040/66969-{d(3)}", False), (f"+49 (0)221 4710-{d(3)}", False), (f"0049 69 90009{d(3)}", False), (f"+49171 39200{d(2)}", False),
            (f"0171/39200{d(2)}", False), (f"0221 - 4710 {d(3)}", False), (f"03023125{d(3)}", True), (f"017139200{d(2)}", True),
            (f"06131 55 01 {d(2)}", False), (f"030-23125-{d(2)}", False),
        ],
        "fr": [
            (f"01 99 00 {d(2)} {d(2)}", False), (f"06 39 98 {d(2)} {d(2)}", False), (f"06.39.98.{d(2)}.{d(2)}", False),
            (f"+33 6 39 98 {d(2)} {d(2)}", False), (f"+33 (0)1 99 00 {d(2)} {d(2)}", False), (f"0033 1 99 00 {d(2)} {d(2)}", False),
            (f"02-61-91-{d(2)}-{d(2)}", False), (f"0639 98{d(4)}", False), (f"063998{d(4)}", True), (f"+3353601{d(4)}", False),
        ],
        "es": [
            (f"+34 910 555 0{d(2)}", False), (f"+34 655 50 12 {d(2)}", False), (f"(+34) 655 501 2{d(2)}", False), (f"0034 910 555 0{d(2)}", False),
            (f"910 555 0{d(2)}", True), (f"655 50 12 {d(2)}", True), (f"655501{d(3)}", True), (f"91 055 50 {d(2)}", True), (f"+34-655-501-2{d(2)}", False),
        ],
        "it": [
            (f"06 5555 01{d(2)}", False), (f"+39 06 5555 01{d(2)}", False), (f"+39 333 55501{d(2)}", False), (f"02-5555-01{d(2)}", False),
            (f"0039 02 555501{d(2)}", False), (f"333 555 01{d(2)}", True), (f"33355501{d(2)}", True), (f"333-55501{d(2)}", True), (f"(051) 55501{d(2)}", False),
        ],
        "pt": [
            (f"+351 21 555 01 {d(2)}", False), (f"+351 912 555 0{d(2)}", False), (f"(11) 95550-01{d(2)}", False), (f"+55 11 95550-01{d(2)}", False),
            (f"912 555 0{d(2)}", True), (f"21 555 01 {d(2)}", True), (f"91255501{d(1)}", True), (f"(21) 5550-01{d(2)}", False), (f"00351 912 555 0{d(2)}", False),
        ],
    }
    return R.choice(forms[lang])


def luhn(prefix, length):
    body = prefix + digits(length - len(prefix) - 1)
    for check in "0123456789":
        total = 0
        for place, digit in enumerate(reversed(body + check)):
            value = int(digit) * (1 + place % 2)
            total += value // 10 + value % 10
        if total % 10 == 0:
            return body + check
    raise AssertionError


def grouped(number, sizes, separator):
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return separator.join(part for part in parts + [number[at:]] if part)


def card():
    kind = R.random()
    separator = R.choice([" ", " ", "-", "", "\u00a0"])
    if kind < 0.45:
        return grouped(luhn("4", 16), [4, 4, 4], separator)
    if kind < 0.75:
        return grouped(luhn(R.choice(["51", "53", "55", "2221", "2680"]), 16), [4, 4, 4], separator)
    if kind < 0.87:
        return grouped(luhn(R.choice(["34", "37"]), 15), [4, 6], separator)
    if kind < 0.93:
        return grouped(luhn("36", 14), [4, 6], separator)
    if kind < 0.97:
        return grouped(luhn("6304", 19), [4, 4, 4, 4], separator)
    return grouped(luhn("6011", 16), [4, 4, 4], separator)


def broken(number):
    """The same with another last digit, so that the checksum is wrong."""
    return number[:-1] + str((int(number[-1]) + R.randint(1, 9)) % 10)


def iban_of(country, bban):
    number = "".join(str(int(c, 36)) for c in bban + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{bban}"


def iban(lang=None):
    country = {"en": "GB IE", "de": "DE AT CH", "fr": "FR BE LU", "es": "ES", "it": "IT SM", "pt": "PT"}.get(lang, "NL PL SE MT")
    country = R.choice(country.split())
    d = digits
    bban = {
        "GB": "TEST" + d(14), "IE": "TEST" + d(14), "DE": d(18), "AT": d(16), "CH": d(5) + d(12), "FR": d(10) + chars(11, "0123456789MK") + d(2),
        "BE": d(12), "LU": d(16), "ES": d(20), "IT": "X" + d(10) + d(12), "SM": "X" + d(10) + d(12), "PT": d(21), "NL": "TEST" + d(10),
        "PL": d(24), "SE": d(20), "MT": "TEST" + d(5) + d(18),
    }[country]
    return iban_of(country, bban)


def written_iban(lang=None):
    number = iban(lang)
    style = R.random()
    if style < 0.6:
        return grouped(number, [4] * 8, " ")
    if style < 0.9:
        return number
    if style < 0.95:
        return number.lower()
    return grouped(number, [4] * 8, "\u00a0")


def ip():
    style = R.random()
    if style < 0.5:
        return R.choice(["192.0.2.", "198.51.100.", "203.0.113."]) + str(R.randint(1, 254))
    if style < 0.7:
        return f"10.{R.randint(0, 255)}.{R.randint(0, 255)}.{R.randint(1, 254)}"
    if style < 0.75:
        return f"192.168.{R.randint(0, 9)}.{R.randint(1, 254)}"
    if style < 0.9:
        return f"2001:db8:{R.randint(1, 0xffff):x}::{R.randint(1, 0xffff):x}"
    return "2001:db8:" + ":".join(f"{R.randint(0x100, 0xffff):x}" for _ in range(6))


def password():
    word = R.choice(["Sonne", "river", "Lluvia", "neve", "Maple", "gatto", "Berg", "flor", "Orage", "tiger"])
    return R.choice([
        f"{word}{R.randint(10, 9999)}!", f"{word}-{digits(4)}", f"{word}#{word[::-1].lower()}{digits(2)}", chars(10, ALNUM) + R.choice("!$%&?*") + digits(2),
        f"{word.lower()}{digits(3)}", chars(12, ALNUM) + digits(2),
    ])


def weak_password():
    """Only letters: known by its name alone."""
    return R.choice(["geheim", "letmein", "sunflower", "butterfly", "primavera", "chocolat", "Wintergarten", "qwertz", "tesouro"])


def token():
    hexes = "0123456789abcdef"
    return R.choice([
        lambda: "ghp_" + chars(36, ALNUM),
        lambda: "github_pat_" + chars(22, ALNUM) + "_" + chars(59, ALNUM),
        lambda: "AKIA" + chars(16, LOWER.upper() + "234567"),
        lambda: "xoxb-" + digits(12) + "-" + digits(12) + "-" + chars(24, ALNUM),
        lambda: "AIza" + chars(35, URLSAFE),
        lambda: "sk-proj-" + chars(40, ALNUM) + digits(3),
        lambda: "sk-ant-api03-" + chars(80, URLSAFE) + digits(4) + "AA",
        lambda: "hf_" + chars(34, ALNUM),
        lambda: "sk_live_" + chars(24, ALNUM),
        lambda: "glpat-" + chars(20, ALNUM),
        lambda: "eyJ" + chars(33, ALNUM) + ".eyJ" + chars(60, URLSAFE[:-2]) + "." + chars(43, URLSAFE[:-2]),
        lambda: "sk-" + chars(32, hexes) + digits(3),
    ])()


def pem():
    kind = R.choice(["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"])
    body = "\n".join(chars(64, ALNUM + "+/") for _ in range(3)) + "\n" + chars(20, ALNUM) + "=="
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


# --- sentences ----------------------------------------------------------------------------------------------------------------
# A template names values in braces. {email}, {phone} (with or without a word), {card}, {iban}, {ip}, {pw} (password), {weak},
# {token}, {pem} and {n}, a name, which is no span. {bare} is a telephone number that its shape tells.

POSITIVE = {
    "en": [
        "Hi, this is {n}. Please send the invoice to {email} instead of {email}. Thanks!",
        "Customer {n} called about the delayed parcel; call back on {phone} before 5 pm.",
        "You can reach me at {phone} or by mail at {email}.",
        "My phone number changed, the new one is {phone}.",
        "{n}, {bare}, wants a quote for 40 units by 12/06/2024.",
        "Emergency contact: {n} (sister), mobile {phone}; relation on file since 2019-03-01.",
        "Refund of £129.90 to IBAN {iban}, account holder {n}.",
        "Please pay order 4711-2024 to {iban}. The total is 1,249.00 EUR.",
        "I paid with card {card}, exp 09/27, and was charged twice.",
        "Card on file: {card} ({n}). Replace it with {card}, please.",
        "Login from {ip} at 14:02, blocked after 5 attempts.",
        "My laptop has the address {ip} and cannot reach {ip}.",
        "The password is {pw}, please don't share it.",
        "User: {email}\nPassword: {pw}\nValid until 31.12.2024",
        "Temporary password: {weak}. Change it at first login.",
        "I accidentally posted our key {token} in the channel, can you revoke it?",
        "Here is the deploy key, as asked:\n{pem}\nRegards, {n}",
        "Fax {phone}, reception {bare}, accounts {email}.",
        "Starting Monday, {n} ({email}, ext. 214) replaces Tom in payroll.",
        "Write to {spelled}, our form is broken.",
        "Text {phone} when you're outside the gate.",
        "The API token is {token} and it expires on 2025-01-31.",
    ],
    "de": [
        "Guten Tag, hier ist {n}. Bitte schicken Sie die Rechnung an {email} statt an {email}.",
        "Kunde {n} bittet um Rückruf unter {phone}, am besten nach 16 Uhr.",
        "Sie erreichen mich unter {phone} oder per Mail: {email}.",
        "Meine neue Handynummer ist {phone}, die alte gilt ab 01.07.2024 nicht mehr.",
        "{n}, {bare}, möchte ein Angebot über 40 Stück bis 12.06.2024.",
        "Notfallkontakt: {n} (Schwester), mobil {phone}.",
        "Erstattung von 129,90 € auf IBAN {iban}, Kontoinhaberin {n}.",
        "Bitte überweisen Sie 1.249,00 EUR für Bestellung 4711-2024 auf {iban}.",
        "Ich habe mit der Karte {card} gezahlt, gültig bis 09/27, und wurde doppelt belastet.",
        "Kreditkarte: {card}, Karteninhaber {n}.",
        "Anmeldung von {ip} um 14:02 Uhr, nach 5 Versuchen gesperrt.",
        "Der Drucker hat die IP {ip}, der Server {ip}.",
        "Das Passwort lautet {pw}, bitte nicht weitergeben.",
        "Benutzer: {email}\nKennwort: {pw}\nGültig bis 31.12.2024",
        "WLAN-Passwort: {weak}, Netz Gast-2.",
        "Ich habe aus Versehen unseren Schlüssel {token} in den Kanal kopiert.",
        "Hier der Schlüssel:\n{pem}\nGruß, {n}",
        "Tel. {phone}, Fax {bare}, Buchhaltung {email}.",
        "Schreib an {spelled}, das Formular geht nicht.",
        "Ab Montag ersetzt {n} ({email}, Durchwahl 214) Herrn Petersen.",
        "Ruf mich kurz an: {phone}. Danke!",
        "Die Angaben von Frau {n}: {bare}, {email}, {iban}.",
    ],
    "fr": [
        "Bonjour, ici {n}. Merci d'envoyer la facture à {email} au lieu de {email}.",
        "Le client {n} demande qu'on le rappelle au {phone} avant 17 h.",
        "Vous pouvez me joindre au {phone} ou par courriel : {email}.",
        "Mon nouveau numéro de portable est le {phone}.",
        "{n}, {bare}, souhaite un devis pour 40 pièces avant le 12/06/2024.",
        "Contact d'urgence : {n} (sœur), tél. {phone}.",
        "Remboursement de 129,90 € sur l'IBAN {iban}, titulaire {n}.",
        "Merci de virer 1 249,00 EUR pour la commande 4711-2024 sur {iban}.",
        "J'ai payé avec la carte {card}, expiration 09/27, et j'ai été débité deux fois.",
        "Carte bancaire : {card}, au nom de {n}.",
        "Connexion depuis {ip} à 14:02, bloquée après 5 essais.",
        "L'imprimante a l'adresse {ip}, le serveur {ip}.",
        "Le mot de passe est {pw}, ne le partagez pas.",
        "Identifiant : {email}\nMot de passe : {pw}\nValable jusqu'au 31/12/2024",
        "Mot de passe : {weak}",
        "J'ai collé notre clé {token} dans le canal par erreur.",
        "Voici la clé :\n{pem}\nCordialement, {n}",
        "Tél. {phone}, fax {bare}, comptabilité {email}.",
        "L'adresse d'{email} ne répond plus.",
        "Écrivez à {spelled}, le formulaire est en panne.",
        "Appelez-moi au {phone} demain matin.",
        "Coordonnées de {n} : {bare}, {email}, {iban}.",
    ],
    "es": [
        "Hola, soy {n}. Envíen la factura a {email} y no a {email}, por favor.",
        "La clienta {n} pide que la llamemos al {phone} antes de las 17 h.",
        "Puede localizarme en el teléfono {phone} o por correo: {email}.",
        "Mi nuevo número de móvil es {phone}.",
        "{n}, {bare}, quiere un presupuesto de 40 unidades para el 12/06/2024.",
        "Contacto de emergencia: {n} (hermana), tel. {phone}.",
        "Reembolso de 129,90 € al IBAN {iban}, titular {n}.",
        "Transfieran 1.249,00 EUR por el pedido 4711-2024 a {iban}.",
        "Pagué con la tarjeta {card}, caducidad 09/27, y me cobraron dos veces.",
        "Tarjeta de crédito: {card}, a nombre de {n}.",
        "Acceso desde {ip} a las 14:02, bloqueado tras 5 intentos.",
        "La impresora tiene la dirección {ip} y el servidor {ip}.",
        "La contraseña es {pw}, no la compartas.",
        "Usuario: {email}\nContraseña: {pw}\nVálida hasta 31/12/2024",
        "Contraseña: {weak}",
        "Pegué por error nuestra clave {token} en el canal.",
        "Aquí va la clave:\n{pem}\nSaludos, {n}",
        "Tel. {phone}, fax {bare}, contabilidad {email}.",
        "Escriba a {spelled}, el formulario no funciona.",
        "Llámame al {phone} cuando llegues.",
        "WhatsApp {phone} para incidencias de fin de semana.",
        "Datos de {n}: {bare}, {email}, {iban}.",
    ],
    "it": [
        "Buongiorno, sono {n}. Inviate la fattura a {email} invece che a {email}.",
        "Il cliente {n} chiede di essere richiamato al {phone} entro le 17.",
        "Mi trovate al telefono {phone} oppure via mail: {email}.",
        "Il mio nuovo cellulare è {phone}.",
        "{n}, {bare}, desidera un preventivo per 40 pezzi entro il 12/06/2024.",
        "Contatto di emergenza: {n} (sorella), cell. {phone}.",
        "Rimborso di 129,90 € sull'IBAN {iban}, intestato a {n}.",
        "Bonifico di 1.249,00 EUR per l'ordine 4711-2024 su {iban}.",
        "Ho pagato con la carta {card}, scadenza 09/27, e l'addebito è doppio.",
        "Carta di credito: {card}, intestata a {n}.",
        "Accesso da {ip} alle 14:02, bloccato dopo 5 tentativi.",
        "La stampante ha l'indirizzo {ip}, il server {ip}.",
        "La password è {pw}, non condividerla.",
        "Utente: {email}\nPassword: {pw}\nValida fino al 31/12/2024",
        "Password: {weak}",
        "Ho incollato per sbaglio la nostra chiave {token} nel canale.",
        "Ecco la chiave:\n{pem}\nSaluti, {n}",
        "Tel. {phone}, fax {bare}, contabilità {email}.",
        "Scrivete a {spelled}, il modulo non funziona.",
        "Chiamami al {phone} quando arrivi.",
        "Recapito di {n}: {phone}, solo la mattina.",
        "Dati di {n}: {bare}, {email}, {iban}.",
    ],
    "pt": [
        "Bom dia, é {n}. Enviem a fatura para {email} em vez de {email}.",
        "O cliente {n} pede que lhe liguem para o telefone {phone} antes das 17h.",
        "Pode contactar-me pelo telemóvel {phone} ou por email: {email}.",
        "O meu novo número de telemóvel é {phone}.",
        "{n}, {bare}, quer um orçamento de 40 unidades até 12/06/2024.",
        "Contacto de emergência: {n} (irmã), tel. {phone}.",
        "Reembolso de 129,90 € para o IBAN {iban}, titular {n}.",
        "Transferir 1.249,00 EUR da encomenda 4711-2024 para {iban}.",
        "Paguei com o cartão {card}, validade 09/27, e fui cobrado duas vezes.",
        "Cartão de crédito: {card}, em nome de {n}.",
        "Acesso de {ip} às 14:02, bloqueado após 5 tentativas.",
        "A impressora tem o endereço {ip} e o servidor {ip}.",
        "A senha é {pw}, não a partilhe.",
        "Utilizador: {email}\nPalavra-passe: {pw}\nVálida até 31/12/2024",
        "Senha: {weak}",
        "Colei por engano a nossa chave {token} no canal.",
        "Segue a chave:\n{pem}\nCumprimentos, {n}",
        "Tel. {phone}, fax {bare}, contabilidade {email}.",
        "Escreva para {spelled}, o formulário não funciona.",
        "Ligue para {phone} quando chegar.",
        "Celular {phone}, só à tarde.",
        "Dados de {n}: {bare}, {email}, {iban}.",
    ],
}

SPELLED = {
    "en": "{a} [at] example [dot] com", "de": "{a}(at)example.org", "fr": "{a} (arobase) example (point) org", "es": "{a} (arroba) example.com",
    "it": "{a} [chiocciola] example [punto] net", "pt": "{a} (arroba) example.org",
}

# Nothing of these is personal data. {d3} is three digits; {badcard} and {badiban} have wrong checksums.
NEGATIVE = {
    "en": [
        "Order number 0{d2}-{d4}-{d4} shipped on 2024-05-{day}, tracking 1Z{d3}A{d2}03{d4}{d4}.",
        "Invoice no. 0{d3} {d3} {d3} is due 01/0{d1}/2024; amount 12,{d3}.00 USD.",
        "ISBN 978-3-16-148410-0 and 0-306-40615-2 are out of stock.",
        "Update from version 4.{d1}.{d1}.{d1} to 4.12.0.{d1} before June.",
        "The card number {badcard} was rejected: checksum.",
        "IBAN {badiban} is invalid, please check it.",
        "The meeting is at 10:30 - 11:45 in room 0{d3}; agenda item 3.2.1.",
        "Coordinates 51.5{d3}, -0.12{d2}; altitude 35 m.",
        "Commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b is in build 10.0.1{d4}.1.",
        "Your password has expired. Password: at least 12 characters.",
        "The token limit is 4096; max_tokens=1024, temperature 0.7.",
        "Revenue rose from 1 203 456 to 2 345 678 (+94.9 %).",
        "Ticket #0{d3}-{d3}-{d4}: waiting for parts.",
        "EAN 4006381333931, batch 0{d4}-{d3}, quantity 1,200.",
        "Policy number 55-{d4}-{d4}, renewal on 01.02.2025.",
        "Ask @support or visit https://example.com:8443/help?id={d3}{d4}.",
        "The pump delivers 0.5{d2} l/s at 1.{d2} bar, model 3{d2}-{d3}-A.",
        "See section 4.1.2.3 of the manual, pages 101-108.",
        "request id 550e8400-e29b-41d4-a716-4466554{d2}000 took 1.204 s",
    ],
    "de": [
        "Bestellnummer 0{d2}-{d4}-{d4}, versandt am {day}.05.2024, Sendungsnummer 00340{d4}{d4}{d4}{d3}.",
        "Rechnung Nr. 0{d3} {d3} {d3} ist am 01.0{d1}.2024 fällig: 12.{d3},00 €.",
        "Kundennummer 0{d3}/{d3}{d3}, Vertrag 0{d3}-{d4}{d2}.",
        "ISBN 978-3-16-148410-0 ist vergriffen.",
        "Firmware 2.{d1}.{d1}.{d1} behebt den Fehler aus Version 2.0.1.{d1}.",
        "Die Kartennummer {badcard} wurde abgelehnt (Prüfziffer).",
        "Die IBAN {badiban} stimmt nicht.",
        "Termin von 10.30 - 11.45 Uhr, Raum 0{d3}.",
        "Koordinaten 52,5{d3}; 13,40{d2}. Höhe 35 m.",
        "Das Passwort ist abgelaufen. Passwort: vergessen?",
        "Aktenzeichen 0{d2} {d4}/{d2} vom {day}.03.2024",
        "Umsatz von 1.203.456 auf 2.345.678 gestiegen (+94,9 %).",
        "Artikel 0{d2}-{d3}-{d3}, Charge 0{d4}-{d3}, 1.200 Stück.",
        "Steuernummer 0{d2}/{d3}/{d4}{d1}, USt-IdNr. DE{d3}{d3}{d3}",
        "Siehe Kapitel 4.1.2.3 und § 1.2.3.4 des Vertrags.",
        "Lieferung bis KW 23, 09.06.24, 08:00 bis 12:00.",
        "PLZ 01067 Dresden, Hausnummer 12-14",
        "Seriennummer 0{d3} {d4} {d2}, Baujahr 2019",
        "Zugriff auf localhost 127.0.0.1:8080 und 0.0.0.0",
    ],
    "fr": [
        "Commande n° 0{d2}-{d4}-{d4} expédiée le {day}/05/2024, colis 8R{d4}{d4}{d3}.",
        "Facture 0{d3} {d3} {d3} à régler avant le 01/0{d1}/2024 : 12 {d3},00 €.",
        "Dossier 0{d1} {d2} {d2} {d2} {d2}, suivi en cours.",
        "ISBN 978-2-07-036822-8 épuisé.",
        "Mise à jour de la version 4.{d1}.{d1}.{d1} vers 4.12.0.{d1}.",
        "La carte {badcard} a été refusée.",
        "L'IBAN {badiban} est erroné.",
        "Réunion de 10h30 à 11h45, salle 0{d3}.",
        "Coordonnées 48.85{d2}, 2.35{d2}.",
        "Mot de passe oublié ? Le mot de passe est expiré.",
        "SIRET {d3} {d3} {d3} {d4}{d1}, TVA FR{d2}{d3}{d3}{d3}",
        "Chiffre d'affaires : 1 203 456 € contre 2 345 678 €.",
        "Article 0{d2}-{d3}-{d3}, lot 0{d4}-{d3}, 1 200 pièces.",
        "Voir chapitre 4.1.2.3 et l'annexe 2.",
        "Livraison le 09.06.24 entre 08:00 et 12:00.",
        "Température -0.12{d2}, pression 1.0{d3} bar",
        "Empreinte sha256:{hex}",
        "Code postal 01{d3}, bâtiment 12-14",
        "Référence 0{d1}-{d2}-{d2}-{d2}-{d2}, stock nul",
    ],
    "es": [
        "Pedido n.º 0{d2}-{d4}-{d4}, enviado el {day}/05/2024, seguimiento PQ{d4}{d4}{d3}.",
        "Factura 0{d3} {d3} {d3}, vence el 01/0{d1}/2024: 12.{d3},00 €.",
        "Expediente 0{d2}-{d4}{d2}, albarán {d4}-{d3}-{d2}.",
        "ISBN 978-84-376-0494-7 agotado.",
        "Actualice de la versión 4.{d1}.{d1}.{d1} a 4.12.0.{d1}.",
        "La tarjeta {badcard} fue rechazada.",
        "El IBAN {badiban} es incorrecto.",
        "Reunión de 10:30 a 11:45, sala 0{d3}.",
        "Coordenadas 40.41{d2}, -3.70{d2}.",
        "Contraseña: olvidada. La contraseña es incorrecta.",
        "NIF B{d4}{d4}, referencia 0{d3}-{d3}{d3}",
        "Ventas: de 1.203.456 a 2.345.678 unidades (+94,9 %).",
        "Artículo 0{d2}-{d3}-{d3}, lote 0{d4}-{d3}, 1.200 uds.",
        "Véase el capítulo 4.1.2.3 del contrato.",
        "Entrega el 09.06.24 entre las 08:00 y las 12:00.",
        "Palabras clave: redes, datos, nube",
        "Huella {hex}",
        "Código postal 08{d3}, portal 12-14",
        "Matrícula {d4} BCD, póliza 0{d3}-{d4}-{d2}",
    ],
    "it": [
        "Ordine n. 0{d2}-{d4}-{d4} spedito il {day}/05/2024, spedizione 3UW{d4}{d4}.",
        "Fattura n. 0{d3} {d3} {d3}, scadenza 01/0{d1}/2024: 12.{d3},00 €.",
        "Pratica 0{d2}-{d4}{d2}, bolla {d4}-{d3}-{d2}.",
        "ISBN 978-88-06-21965-7 esaurito.",
        "Aggiornare dalla versione 4.{d1}.{d1}.{d1} alla 4.12.0.{d1}.",
        "La carta {badcard} è stata rifiutata.",
        "L'IBAN {badiban} è errato.",
        "Riunione dalle 10.30 alle 11.45, sala 0{d3}.",
        "Coordinate 41.90{d2}, 12.49{d2}.",
        "Password: dimenticata. La password è scaduta.",
        "Partita IVA 0{d3}{d3}{d4}, codice 0{d3}-{d3}{d3}",
        "Fatturato da 1.203.456 a 2.345.678 (+94,9 %).",
        "Articolo 0{d2}-{d3}-{d3}, lotto 0{d4}-{d3}, 1.200 pezzi.",
        "Si veda il capitolo 4.1.2.3 del contratto.",
        "Consegna il 09.06.24 tra le 08:00 e le 12:00.",
        "Segreto del successo: pazienza e metodo",
        "Impronta {hex}",
        "CAP 00{d3} Roma, interno 12-14",
        "Polizza 0{d3}-{d4}-{d2}, targa AB {d3} CD",
    ],
    "pt": [
        "Encomenda n.º 0{d2}-{d4}-{d4} enviada a {day}/05/2024, rastreio RR{d4}{d4}{d1}PT.",
        "Fatura 0{d3} {d3} {d3}, vence a 01/0{d1}/2024: 12.{d3},00 €.",
        "Processo 0{d2}-{d4}{d2}, guia {d4}-{d3}-{d2}.",
        "ISBN 978-972-0-04670-2 esgotado.",
        "Atualizar da versão 4.{d1}.{d1}.{d1} para 4.12.0.{d1}.",
        "O cartão {badcard} foi recusado.",
        "O IBAN {badiban} está errado.",
        "Reunião das 10:30 às 11:45, sala 0{d3}.",
        "Coordenadas 38.72{d2}, -9.13{d2}.",
        "Senha: esquecida. A senha é inválida e o pedido foi recusado.",
        "NIF 5{d4}{d4}, referência 0{d3}-{d3}{d3}",
        "Vendas de 1.203.456 para 2.345.678 (+94,9 %).",
        "Artigo 0{d2}-{d3}-{d3}, lote 0{d4}-{d3}, 1.200 unidades.",
        "Ver a secção 4.1.2.3 do contrato.",
        "Entrega a 09.06.24 entre as 08:00 e as 12:00.",
        "Resenha: ótima, nota 4.7 de 5",
        "Hash {hex}",
        "Código postal 1{d3}-{d3} Lisboa",
        "Apólice 0{d3}-{d4}-{d2}, matrícula AA-{d2}-BB",
    ],
}

# Logs and configurations: of no language.
TECHNICAL = [
    "2024-05-{day}T14:02:11Z INFO login user={email} ip={ip} status=200 duration=12ms",
    "{ip} - - [12/May/2024:14:02:11 +0000] \"GET /index.html HTTP/1.1\" 200 512 \"-\" \"Mozilla/5.0 Chrome/120.0.0.0\"",
    "DATABASE_URL=postgres://{userinfo}@db.example.com:5432/shop",
    "export API_KEY={key}\nexport REGION=eu-west-1",
    "curl -H 'Authorization: Bearer {bearer}' https://api.example.com/v1/items",
    "{{\"user\": \"ada\", \"password\": \"{pw}\", \"retries\": 3}}",
    "spring.datasource.password={pw}\nspring.datasource.pool=10",
    "sshd[{d4}]: Failed password for root from {ip} port 5{d4} ssh2",
    "aws_access_key_id = {aws}\naws_secret_access_key = {awssecret}",
    "client_secret: '{key}' # rotate before 2025-01-01",
    "Server=tcp:db.example.com,1433;Database=shop;User ID=app;Password={word};Encrypt=True",
    "peer {ip}: connection reset, 3 retries, next in 1.5 s",
    "mysql -u app --password {pw} shop < dump.sql",
    "hf login --token {token}",
]
TECHNICAL_NEGATIVE = [
    "def connect(password: str, token: str | None = None) -> None:",
    "password = os.environ[\"DB_PASSWORD\"]\nsecret = config.get_secret(\"shop\")",
    "image: registry.example.com/app@sha256:{hex}",
    "password: ${{DB_PASSWORD}}\napi_key: <your-api-key>",
    "00:1a:2b:3c:4d:5e 12:34:56.789 std::vec::Vec::<u8>::new()",
    "integrity sha512-{b64} lodash@4.17.21 @types/node@20.1.0",
]

SECRET_KINDS = {"pw", "weak", "token", "pem", "userinfo", "key", "bearer", "aws", "awssecret", "word"}


def value(name, lang):
    """The kind and the text of a named value; no kind for what is not personal data."""
    if name == "n":
        return None, R.choice(NAMES[lang])
    if name == "email":
        return "EMAIL", email(lang)
    if name == "spelled":
        return "EMAIL", SPELLED[lang].format(a=R.choice(["info", "max.kunz", "rh-2", "ventas"]))
    if name in ("phone", "bare"):
        number, needs_word = phone(lang)
        while name == "bare" and needs_word:
            number, needs_word = phone(lang)
        return "PHONE", number
    if name == "card":
        return "CARD", card()
    if name == "iban":
        return "IBAN", written_iban(lang if R.random() < 0.8 else None)
    if name == "ip":
        return "IP", ip()
    if name == "badcard":
        return None, grouped(broken(luhn(R.choice(["4", "53"]), 16)), [4, 4, 4], R.choice([" ", "-", ""]))
    if name == "badiban":
        return None, grouped(broken(iban(R.choice(["de", "es", "pt"]))), [4] * 8, R.choice([" ", ""]))
    if name == "hex":
        return None, chars(64, "0123456789abcdef")
    if name == "b64":
        return None, chars(86, ALNUM + "+/") + "=="
    if name == "day":
        return None, str(R.randint(10, 28))
    if name[0] == "d" and name[1:].isdigit():
        return None, digits(int(name[1:]))
    if name in SECRET_KINDS:
        made = {
            "pw": password, "weak": weak_password, "token": token, "pem": pem,
            "userinfo": lambda: R.choice(["app", "shop", "ada"]) + ":" + chars(14, ALNUM),
            "key": lambda: chars(28, ALNUM) + digits(4), "bearer": lambda: chars(40, URLSAFE[:-2]) + digits(2),
            "aws": lambda: "AKIA" + chars(16, LOWER.upper() + "234567"), "awssecret": lambda: chars(38, ALNUM + "+/") + digits(2),
            "word": lambda: chars(9, ALNUM) + "!" + digits(2),
        }
        return "SECRET", made[name]()
    raise KeyError(name)


def fill(template, lang):
    text, spans, at = "", [], 0
    template = template.replace("{{", "\0").replace("}}", "\1")
    while at < len(template):
        if template[at] == "{":
            end = template.index("}", at)
            kind, filled = value(template[at + 1 : end], lang)
            if kind:
                start = len(text.encode())
                spans.append([kind, start, start + len(filled.encode())])
            text += filled
            at = end + 1
        else:
            text += template[at].replace("\0", "{").replace("\1", "}")
            at += 1
    return text, spans


def records():
    for lang in LANGUAGES:
        negatives = list(NEGATIVE[lang])
        positives = POSITIVE[lang]
        for n in range(PER_LANGUAGE - len(negatives)):
            yield lang, *fill(positives[n % len(positives)], lang)
        for template in negatives:
            yield lang, *fill(template, lang)
    for template in TECHNICAL + TECHNICAL[:12]:
        yield "log", *fill(template, "en")
    for template in TECHNICAL_NEGATIVE:
        yield "log", *fill(template, "en")


ESCAPED = ["ghp_", "github_pat_", "AKIA", "xoxb-", "AIza", "sk-", "hf_", "sk_live_", "glpat-", "eyJ", "-----BEGIN"]


def line(lang, text, spans):
    out = json.dumps({"lang": lang, "text": text, "spans": spans}, ensure_ascii=False)
    for start in ESCAPED:
        out = out.replace(start, f"\\u{ord(start[0]):04x}{start[1:]}")
    assert json.loads(out)["text"] == text
    return out


def main():
    lines = [line(*record) for record in records()]
    assert len(lines) == 500, len(lines)
    assert sum('"spans": []' in written for written in lines) >= 100
    pathlib.Path(__file__).with_name("corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
