" Written by editors/build.py from the token tables of the compiler.
if exists('b:current_syntax') | finish | endif
syntax case match
syntax keyword blvStatement assume def dim expect extern include let lower maximize minimize model param report set upper var
syntax match blvStatement /\<subject\s\+to\>/
syntax keyword blvClause and diff else for if in inter nash not optimistic or pessimistic start then union where within
syntax keyword blvConstant inf pi
syntax keyword blvType ball binary integers psd simplex
syntax keyword blvFact convex licq smooth steps strongly_convex unique
syntax match blvFunction /\<\%(abs\|atan\|card\|concat\|cos\|cosh\|csv\|diag\|dot\|dual\|entropy\|exp\|expm1\|eye\|file\|huber\|json\|log\|log1p\|logdet\|logistic\|logsoftmax\|logsumexp\|max\|mean\|min\|norm1\|norm2\|norminf\|ones\|prod\|quad\|relu\|sigmoid\|sin\|sinh\|softmax\|softmax_cross_entropy\|softplus\|sqrt\|square\|sum\|sumsq\|tan\|tanh\|trace\|zeros\)\>\ze\s*(/
syntax match blvNumber /\<\d\+\%(\.\.\@!\d*\)\=\%([eE][+-]\=\d\+\)\=/
syntax region blvString start=/"/ end=/"/ oneline
syntax match blvComment /#.*/ contains=@Spell
syntax match blvDoc /##.*/ contains=@Spell
highlight default link blvStatement Statement
highlight default link blvClause Keyword
highlight default link blvConstant Constant
highlight default link blvType Type
highlight default link blvFact PreProc
highlight default link blvFunction Function
highlight default link blvNumber Number
highlight default link blvString String
highlight default link blvComment Comment
highlight default link blvDoc SpecialComment
let b:current_syntax = 'blv'
