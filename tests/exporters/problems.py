"""Small models with known optima: examples of the literature and of applications."""

P1 = """
model p1 "Shimizu, Ishizuka, Bard, example 16.1.1";
upper { var x in [0, 10]; minimize x - 4*y; }
lower f {
  var y in [0, 10];
  minimize y;
  subject to
    c1: -x - y <= -3;
    c2: -2*x + y <= 0;
    c3: 2*x + y <= 12;
    c4: 3*x - 2*y <= 4;
}
"""

B88 = """
model b88 "Bard 1988, example 1";
upper { var x in [0, 10] start 1; minimize (x - 5)^2 + (2*y + 1)^2; }
lower f {
  var y in [0, 10];
  minimize (y - 1)^2 - 1.5*x*y;
  subject to
    c1: -3*x + y + 3 <= 0;
    c2: x - 0.5*y - 4 <= 0;
    c3: x + y - 7 <= 0;
}
"""

EXP = """
model exponential "a lower level that is no polynomial";
upper { var x in [0.1, 5] start 1; minimize (x - 2)^2 + y^2; }
lower f { var y in [0, 3]; minimize exp(y) - x*y; }
"""

DEMPE = """
model dempe "coupled linear bilevel program";
upper { var y in [0, 8]; minimize 3*x + y; subject to top: x <= 5; }
lower f {
  var x in [0, 20];
  maximize x;
  subject to
    a: x + y <= 8;
    b: 4*x + y >= 8;
    c: 2*x + y <= 13;
    d: 2*x - 7*y <= 0;
}
"""

TOLL = """
model toll "toll setting on four nodes";
set ARC = {"12", "13", "14", "24", "34"};
set NODE = {"1", "2", "3", "4"};
param cost[ARC] = {"12": 1, "13": 1, "14": 4, "24": 1, "34": 1};
param cap[ARC] = {"12": 3, "13": 2, "14": 3, "24": 2, "34": 1};
param most[ARC] = {"12": 4, "13": 4, "14": 0, "24": 4, "34": 4};
param inc[NODE, ARC] = {("1", "12"): 1, ("1", "13"): 1, ("1", "14"): 1,
  ("2", "12"): -1, ("2", "13"): 0, ("2", "14"): 0, ("2", "24"): 1, ("2", "34"): 0,
  ("1", "24"): 0, ("1", "34"): 0, ("3", "12"): 0, ("3", "13"): -1, ("3", "14"): 0,
  ("3", "24"): 0, ("3", "34"): 1, ("4", "12"): 0, ("4", "13"): 0, ("4", "14"): -1,
  ("4", "24"): -1, ("4", "34"): -1};
param supply[NODE] = {"1": 3, "2": 0, "3": 0, "4": -3};
upper {
  var k[ARC] in integers(0, 4);
  maximize sum(0.5 * k[a] * f[a] for a in ARC);
  subject to
    closed[a in ARC]: k[a] <= most[a];
}
lower flow {
  var f[ARC] in [0, inf];
  minimize sum((cost[a] + 0.5 * k[a]) * f[a] for a in ARC);
  subject to
    meet[n in NODE]: sum(inc[n, a] * f[a] for a in ARC) == supply[n];
    room[a in ARC]: f[a] <= cap[a];
}
"""

STACKELBERG = """
model stackelberg;
upper { var Q in [0, 13] start 1; maximize (13 - Q - q) * Q - Q; }
lower rival { var q in [0, 13]; maximize (13 - Q - q) * q - q; }
"""

NASH = """
model game "a leader and two followers that play";
set FIRM = {"a", "b"};
upper { var Q in [0, 13] start 1; maximize (13 - Q - sum(firm.q[i] for i in FIRM)) * Q - Q; }
lower firm[i in FIRM] nash {
  var q in [0, 13];
  maximize (13 - Q - sum(firm.q[j] for j in FIRM)) * q - q;
}
"""

BIDDING = """
model bidding "strategic bidding: the price is a shadow price";
upper { var q in [0, 100]; maximize dual(market.balance) * g; }
lower market {
  var g in [0, inf], r1 in [0, 40], r2 in [0, 40], deficit in [0, 100];
  minimize 50*r1 + 100*r2 + 1000*deficit;
  subject to
    balance: g + r1 + r2 + deficit == 100;
    offer: g <= q;
  assume dual(balance) in [0, 1000];
}
"""

INVESTMENT = """
model investment "generation investment: the price is a shadow price";
upper { var x in [0, 250]; minimize 40000*x + 8760*(10 - dual(market.balance))*y1; }
lower market {
  var y1 in [0, inf], y2 in [0, 150], y3 in [0, 100];
  minimize 10*y1 + 12*y2 + 15*y3;
  subject to
    balance: y1 + y2 + y3 == 200;
    built: y1 <= x;
  assume dual(balance) in [0, 15];
}
"""

_GRAPH = """
set ARC = {"sa", "sb", "ab", "at", "bt", "ac", "ct"};
set NODE = {"s", "a", "b", "c", "t"};
"""

PATH = (
    'model path "shortest-path interdiction";'
    + _GRAPH
    + """
param length[ARC] = {"sa": 2, "sb": 3, "ab": 1, "at": 6, "bt": 4, "ac": 2, "ct": 3};
param delay = 6, budget = 2;
upper {
  var z[ARC] in binary;
  maximize sum((length[a] + delay * z[a]) * f[a] for a in ARC);
  subject to
    spend: sum(z) <= budget;
}
lower route {
  var f[ARC] in [0, 1];
  minimize sum((length[a] + delay * z[a]) * f[a] for a in ARC);
  subject to
    source: f["sa"] + f["sb"] == 1;
    at_a: f["sa"] == f["ab"] + f["at"] + f["ac"];
    at_b: f["sb"] + f["ab"] == f["bt"];
    at_c: f["ac"] == f["ct"];
}
"""
)

FLOW = (
    'model flow "max-flow interdiction";'
    + _GRAPH
    + """
param cap[ARC] = {"sa": 7, "sb": 5, "ab": 3, "at": 4, "bt": 6, "ac": 3, "ct": 3};
upper {
  var z[ARC] in binary;
  minimize f["sa"] + f["sb"];
  subject to
    spend: sum(z) <= 1;
}
lower route {
  var f[ARC] in [0, 20];
  maximize f["sa"] + f["sb"];
  subject to
    room[a in ARC]: f[a] <= cap[a] * (1 - z[a]);
    at_a: f["sa"] == f["ab"] + f["at"] + f["ac"];
    at_b: f["sb"] + f["ab"] == f["bt"];
    at_c: f["ac"] == f["ct"];
}
"""
)

BALL = """
model ball "a follower on a disc";
upper {
  var x[2] in [-1, 1] start 0.5;
  minimize (x[1] - 1)^2 + (y[1] - 0.6)^2 + (y[2] - 0.8)^2 + x[2]^2;
}
lower f { var y[2] in ball(1); minimize -x[1]*y[1] - (x[2] + 1)*y[2]; }
"""

FAMILY = """
model family "independent followers and a simplex";
set AREA = {"north east", "west", "x-1"};
param want[AREA] = {"north east": 0.2, "west": 0.5, "x-1": 0.9};
upper {
  var price in [0, 1];
  minimize sum((site.share[i, 1] - want[i])^2 for i in AREA) + 0.1*price;
}
lower site[i in AREA] {
  var share[2] in simplex;
  minimize (share[1] - price*want[i])^2 + share[2]^2;
}
"""

# name -> (text, optimum, value where the follower is ignored or None)
KNOWN = {
    "p1": (P1, -12.0, -21.0),
    "b88": (B88, 17.0, 2.0),
    "dempe": (DEMPE, 6.13333333, None),
    "toll": (TOLL, 6.0, None),
    "stackelberg": (STACKELBERG, 18.0, 36.0),
    "nash": (NASH, 12.0, 36.0),
    "bidding": (BIDDING, 20000.0, 100000.0),
    "investment": (INVESTMENT, -190000.0, None),
    "path": (PATH, 13.0, None),
    "flow": (FLOW, 5.0, 0.0),
}

INTEGER = """
model moore "Moore and Bard 1990";
upper { var x in integers(0, 8); minimize -x - 10*y; }
lower f {
  var y in integers(0, 5);
  minimize y;
  subject to
    a: -25*x + 20*y <= 30;
    b: x + 2*y <= 10;
    c: 2*x - y <= 15;
    d: 2*x + 10*y >= 15;
}
"""

CONCAVE = """
model concave;
upper { var x in [-1, 1]; minimize x^2 + y; }
lower f { var y in [-2, 2]; minimize x*y - y^2; }
"""

PESSIMISTIC = P1.replace("upper {", "upper pessimistic {").replace("p1", "p1_pessimistic")
