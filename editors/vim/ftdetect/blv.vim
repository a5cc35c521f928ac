autocmd BufNewFile,BufRead *.blv setfiletype blv
