"""How the tests check the library's annotations: types by beartype, tensor shapes by jaxtyping. Users never pay."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as everywhere in Python
