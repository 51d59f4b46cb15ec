"""What stands on the signs, labels, plates and displays of the picture tasks: up to 20 characters of A-Z, 0-9, space, hyphen."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
ALPHABET = LETTERS + DIGITS + "- "
LIMIT = 20

SIGNS = """EXIT|ENTRY|NO ENTRY|OPEN|CLOSED|PUSH|PULL|STOP|DANGER|WARNING|CAUTION|PRIVATE|RECEPTION|WAITING ROOM|TOILETS|WAY OUT
|NO SMOKING|NO PARKING|STAFF ONLY|KEEP OUT|KEEP CLEAR|FIRE EXIT|FIRE DOOR|FIRST AID|HIGH VOLTAGE|WET FLOOR|MIND THE STEP
|OUT OF ORDER|ON AIR|SOLD OUT|FOR SALE|FOR RENT|SALE|FREE|FULL|EMPTY|ON|OFF|READY|ERROR|LOW BATTERY|LIFT|ELEVATOR|STAIRS|BUS STOP
|TAXI|INFORMATION|TICKETS|CHECK IN|BAGGAGE|CUSTOMS|LIBRARY|KITCHEN|OFFICE|STORE|STORAGE|WORKSHOP|GARAGE|LABORATORY|PHARMACY|HOSPITAL
|HOTEL|CAFE|BAR|BAKERY|MARKET|POST|BANK|SCHOOL|MUSEUM|PARK|BEACH|CAMPING|FRAGILE|THIS SIDE UP|HANDLE WITH CARE|DO NOT TOUCH
|QUIET PLEASE|RING BELL|NO DOGS|POISON|FLAMMABLE|RECYCLE|PAPER|GLASS|PLASTIC|SUGAR|SALT|FLOUR|COFFEE|TEA|MILK|BUTTER|HONEY|RICE
|TOMATO SOUP|ORANGE JUICE|OLIVE OIL|WATER|PEPPER|VINEGAR|JAM|CEREAL|SOAP|SHAMPOO|ASPIRIN|BREAD|SLOW|GIVE WAY|ONE WAY|DETOUR
|ROAD WORKS|NO TURNS|SCHOOL ZONE|DEAD END|AMBULANCE|POLICE|MEETING ROOM|SERVER ROOM|MAIN ENTRANCE|EAST WING|WEST WING|NORTH|SOUTH
|EAST|WEST|LEFT|RIGHT|UP|DOWN|HOT|COLD|IN|OUT|START|PAUSE|HELLO|WELCOME|THANK YOU|LUNCH BREAK|BACK SOON|NO SIGNAL|CHARGING""".replace("\n", "").split("|")
NUMBERED = """ROOM|PLATFORM|GATE|EXIT|FLOOR|LEVEL|TRACK|LANE|BAY|DOCK|DOOR|SEAT|ROW|AREA|ZONE|HALL|LINE|BUS|FLIGHT|TERMINAL|UNIT|BOX|BATCH
|LOT|SHELF|AISLE|STOP|HOUSE|ROUTE|CHANNEL|TANK|PUMP|TABLE|DESK|LOCKER|BLOCK|SECTION|WARD|STAGE|MODEL|NO|TYPE|SIZE|PART|VOL|CABIN""".replace("\n", "").split("|")
UNITS = "KG|G|ML|L|CM|MM|KM|V|W|A|C|F|PCS|MIN|H|M|T|HZ|PSI|BAR|MPH|RPM".split("|")
MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC".split("|")
SYLLABLES = """BA BE BI BO BU CA CO CU DA DE DI DO DU FA FE FI FO GA GE GO GU HA HE HI HO JA JO JU KA KE KI KO LA LE LI LO LU MA ME MI MO
    MU NA NE NI NO NU PA PE PI PO QUA RA RE RI RO RU SA SE SI SO SU TA TE TI TO TU VA VE VI VO WA WE WI XA XE YA YO ZA ZE ZI ZO""".split()
CODAS = ["", "", "N", "R", "S", "T", "L", "X", "CK", "ND", "NG", "ST", "TH", "SH", "RT", "LD", "MP", "Y"]


def one(rng, options):
    return options[rng.integers(len(options))]


def string(rng, alphabet, low, high):
    return "".join(one(rng, alphabet) for _ in range(rng.integers(low, high + 1)))


def plate(rng):
    """Letters and digits in the shapes of number plates."""
    shape = one(rng, ["LLDD LLL", "LLL-DDDD", "L-LL DDDD", "LL-DDD-LL", "DDD-LLL", "DDDD LLL", "LLL DDD", "LL DD LL", "L DDDDL", "DLLLDDD", "LL-DD-LL", "LLDDDLL"])
    return "".join(one(rng, LETTERS) if c == "L" else one(rng, DIGITS) if c == "D" else c for c in shape)


def mixed(rng):
    """Random characters in one to three groups."""
    sets = [LETTERS, DIGITS, LETTERS + DIGITS]
    groups = [string(rng, one(rng, sets), 1, 7) for _ in range(rng.integers(1, 4))]
    return one(rng, " -").join(groups)


def word(rng):
    return "".join(one(rng, SYLLABLES) for _ in range(rng.integers(1, 4))) + one(rng, CODAS)


def words(rng):
    return " ".join(word(rng) for _ in range(rng.integers(1, 4)))


def numbered(rng):
    number = str(rng.integers(1, 100 if rng.random() < 0.7 else 1000)) + (one(rng, LETTERS[:6]) if rng.random() < 0.2 else "")
    return f"{one(rng, NUMBERED)} {number}"


def serial(rng):
    kind = rng.integers(8)
    d = lambda low, high: string(rng, DIGITS, low, high)  # noqa: E731
    if kind == 0:
        return f"{rng.integers(0, 24):02d}-{rng.integers(0, 60):02d}"
    if kind == 1:
        return f"{rng.integers(1, 32):02d}-{rng.integers(1, 13):02d}-{rng.integers(2000, 2040)}"
    if kind == 2:
        return f"{rng.integers(1, 32)} {one(rng, MONTHS)} {rng.integers(2000, 2040)}"
    if kind == 3:
        return f"SN {d(3, 6)}-{d(2, 4)}"
    if kind == 4:
        return f"{d(1, 4)} {one(rng, UNITS)}"
    if kind == 5:
        return f"{string(rng, LETTERS, 1, 3)}-{d(2, 6)}"
    if kind == 6:
        return d(1, 10)
    return f"{string(rng, LETTERS, 1, 2)}{d(1, 4)}"


def phrase(rng):
    return one(rng, SIGNS)


def several(rng):
    """Two parts of different kinds."""
    parts = [one(rng, KINDS[:-1])(rng) for _ in range(2)]
    return " ".join(parts)


KINDS = [mixed, mixed, plate, phrase, phrase, numbered, numbered, words, serial, several]


def text(rng, limit=LIMIT):
    """One text of at most `limit` characters."""
    while True:
        out = one(rng, KINDS)(rng)
        if 0 < len(out) <= limit:
            return out


def lines(rng, out):
    """The text broken at spaces into one to three lines."""
    places = [i for i, c in enumerate(out) if c == " "]
    most = min(2, len(places))
    cuts = 0 if most == 0 else min(most, int(rng.choice([0, 1, 1, 2])))
    chosen = sorted(rng.choice(places, cuts, replace=False).tolist())
    edges = [-1, *chosen, len(out)]
    return [out[a + 1 : b] for a, b in zip(edges, edges[1:])]
