"""Names for people and bodies who do not exist, from several cultures and in three scripts.

Owns word lists and how a name is written in a mail address. Any likeness is chance.
"""

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Culture:
    """Given and family names as (written, ASCII) pairs."""

    given: tuple[tuple[str, str], ...]
    family: tuple[tuple[str, str], ...]


def _ascii(written: str) -> str:
    plain = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalnum())


def _latin(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((word, _ascii(word)) for word in words.split())


def _pairs(words: str) -> tuple[tuple[str, str], ...]:
    """`written=ascii` words; an underscore in the written form is a space."""
    split = (word.split("=") for word in words.split())
    return tuple((written.replace("_", " "), ascii_form) for written, ascii_form in split)


ENGLISH = Culture(
    _latin(
        "Alice Aaron Beth Brian Carol Caleb Diane Derek Emma Evan Fiona Frank Grace Gavin Hazel "
        "Henry Irene Isaac Joan Jacob Karen Kevin Laura Logan Megan Martin Nora Nathan Olive Owen "
        "Paula Peter Quinn Rachel Robert Sarah Simon Tessa Thomas Ursula Violet Walter Wendy Zoe"
    ),
    _latin(
        "Abbott Barker Bennett Calloway Carver Dalton Denholm Ellery Fairbanks Farrow Garland "
        "Goodwin Hathaway Holloway Ingram Jarvis Kendrick Kirby Langley Lockwood Marlow Merritt "
        "Norwood Oakley Pemberton Prescott Quigley Radcliffe Rowan Sheldon Stratton Thatcher "
        "Underhill Vance Wakefield Whitlock Yardley"
    ),
)
SPANISH = Culture(
    _latin(
        "Adriana Alejandro Beatriz Carlos Camila Diego Elena Esteban Fernanda Gabriel Guadalupe "
        "Héctor Inés Javier Julieta Lucía Luis Mariana Mateo Natalia Óscar Patricia Rafael Rocío "
        "Santiago Sofía Teresa Tomás Valeria Ximena"
    ),
    _latin(
        "Aguilar Álvarez Barrios Cabrera Castañeda Delgado Domínguez Escobar Fuentes Gallegos "
        "Guzmán Herrera Ibáñez Jiménez Lozano Márquez Montoya Núñez Ochoa Paredes Quintero Ramírez "
        "Robledo Salazar Solís Trujillo Urbina Valdés Villalobos Zepeda"
    ),
)
RUSSIAN = Culture(
    _pairs(
        "Алексей=aleksei Анна=anna Борис=boris Вера=vera Галина=galina Дмитрий=dmitri "
        "Екатерина=ekaterina Жанна=zhanna Игорь=igor Ирина=irina Кирилл=kirill Лариса=larisa "
        "Максим=maksim Мария=maria Николай=nikolai Ольга=olga Павел=pavel Светлана=svetlana "
        "Татьяна=tatiana Юрий=yuri"
    ),
    _pairs(
        "Белоус=belous Вершинин=vershinin Гончар=gonchar Журавель=zhuravel Зимин=zimin "
        "Калинич=kalinich Кравченко=kravchenko Лещенко=leshchenko Мороз=moroz Нестеренко=nesterenko "
        "Остапенко=ostapenko Петренко=petrenko Седых=sedykh Тимченко=timchenko Черных=chernykh "
        "Шевчук=shevchuk Юрченко=yurchenko Яременко=yaremenko"
    ),
)
ARABIC = Culture(
    _pairs(
        "أحمد=ahmad أمينة=amina باسم=basim جميلة=jamila حسن=hasan خديجة=khadija دينا=dina "
        "رامي=rami زينب=zaynab سامر=samir سلمى=salma طارق=tariq عمر=omar فاطمة=fatima كريم=karim "
        "ليلى=layla محمود=mahmoud نادية=nadia هالة=hala يوسف=yusuf"
    ),
    _pairs(
        "البغدادي=albaghdadi التميمي=altamimi الحداد=alhaddad الخطيب=alkhatib الرفاعي=alrifai "
        "الزين=alzayn السعيد=alsaid الشامي=alshami الصباغ=alsabbagh العطار=alattar الفارس=alfaris "
        "القاضي=alqadi المصري=almasri النجار=alnajjar الهاشمي=alhashimi منصور=mansour"
    ),
)
CHINESE = Culture(
    _latin("Bo Chen Fang Hui Jian Jing Lan Lei Li Mei Ming Na Ping Qing Rong Wei Xin Yan Ying Yu"),
    _latin("Cai Chen Deng Feng Gao Guo Han He Hu Huang Liang Lin Luo Ma Song Tang Xu Zhao Zheng"),
)
INDIAN = Culture(
    _latin(
        "Aditi Ananya Arjun Deepa Farhan Gita Imran Ishaan Kavya Lakshmi Manoj Meera Nikhil Priya "
        "Rahul Rohan Sana Sunita Vikram Yusra"
    ),
    _latin(
        "Agarwal Bhatt Chandran Desai Gupta Iyer Joshi Kapoor Khan Kulkarni Menon Mirza Nair Patel "
        "Rao Reddy Sharma Siddiqui Thakur Verma"
    ),
)
VIETNAMESE = Culture(
    _latin("An Bảo Chi Dũng Giang Hà Hạnh Hoa Hùng Khánh Lan Linh Mai Minh Nga Phong Quân Thảo Vy"),
    _latin("Bùi Cao Đặng Đinh Dương Hoàng Hồ Huỳnh Lâm Lê Ngô Nguyễn Phạm Phan Tạ Trần Trịnh Võ"),
)
WEST_AFRICAN = Culture(
    _latin("Abena Adaeze Ama Chidi Efua Emeka Folake Ifeoma Kofi Kwame Ngozi Nkechi Tunde Yaw"),
    _latin("Abara Adeyemi Asante Balogun Boateng Chukwu Danso Eze Mensah Obi Okafor Owusu Sesay"),
)
MAORI = Culture(
    _latin("Anahera Aroha Hana Hemi Hone Kahu Kiri Mana Manaia Mere Ngaio Nikau Rangi Tama Wiremu"),
    _latin("Heke Hohepa Kereama Mahuta Ngata Paki Parata Pōtae Rangihuna Tāmati Tūroa Waititi"),
)
PASIFIKA = Culture(
    _latin("Alofa Fetu Ioane Lagi Lupe Malia Mele Sefa Sina Siosaia Talia Tevita Tui Viliami"),
    _latin("Faleafa Fonoti Havili Leota Lolo Matagi Pasene Seuli Taufa Tauiliili Tuilagi Vaka"),
)

TRADES = (
    *("Bakery", "Auto Repair", "Dental Office", "Florist", "Hardware", "Bookshop", "Taquería"),
    *("Plumbing", "Veterinary Clinic", "Cleaners", "Coffee Roasters", "Print Shop", "Pharmacy"),
)
INDUSTRIES = (
    *("Freight", "Foods", "Hospitals", "Insurance", "Logistics", "Retail", "Energy", "Aviation"),
    *("Water Utility", "Transit", "Payments", "Steel", "Hotels", "University", "Laboratories"),
)
FORMS = ("Group", "Holdings", "Partners", "International", "Cooperative", "Systems")
PAPERS = ("Courier", "Ledger", "Tribune", "Evening News", "Radio", "Broadcast Desk", "Wire")
FUNDS = ("Pension Fund", "Asset Management", "Equity Research", "Capital", "Credit Ratings")
ALLIES = ("Wireless Resale", "Telecom Users Association", "Alarm Monitoring", "Satellite Relay")
PLACES = (
    *("Ashford", "Birchwood", "Clearwater", "Dunmore", "Eastvale", "Foxborough", "Glenhaven"),
    *("Harrow Creek", "Ironwood", "Juniper", "Kingsbury", "Larkspur", "Millbrook", "Northfield"),
    *("Oakhurst", "Pinecrest", "Quarry Bay", "Riverbend", "Stonebridge", "Thornton", "Westlake"),
)
CENTRES = (
    "Emergency Call Center",
    "Emergency Dispatch",
    "Fire Rescue",
    "Ambulance Service",
    "Sheriff",
)
