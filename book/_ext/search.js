// How the search page orders what it found, and what it shows of a page. Sphinx puts this before
// its own script; search.py writes WORD_COUNTS.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  // A page is about what its headings say, and what it says often. A function is meant where its
  // name is typed as in code.
  score([docname, title, anchor, description, score]) {
    const query = new URLSearchParams(location.search).get('q')
    if (description !== null) return score + (/[_.]/.test(query) ? 50 : -10)
    const words = stems(query)
    const headings = anchor ? [title.split(' > ').pop()] : headingsOf(docname)
    const likeness = Math.max(...headings.map(heading => overlap(words, stems(heading))))
    return HEADING * likeness + COUNT * often(words, docname) - (ABOUT_ALL[docname] ?? 0)
  },
}

const HEADING = 30
const COUNT = 5
const ABOUT_ALL = {
  'book/api': 10, 'book/equations': 10, 'book/intro': 10, 'book/outputs': 10, 'book/references': 10,
}

function stems(text) {
  const stemmer = new Stemmer()
  return new Set(splitQuery(text.toLowerCase()).filter(word => !stopwords.includes(word))
    .map(word => stemmer.stemWord(word)))
}

function headingsOf(docname) {
  const {alltitles, docnames} = Search._index
  const number = docnames.indexOf(docname)
  return Object.keys(alltitles).filter(title => alltitles[title].some(([file]) => file === number))
}

// Dice's coefficient: 1 if they are the same, 0 if they share nothing.
function overlap(words, others) {
  const shared = [...words].filter(word => others.has(word)).length
  return 2 * shared / (words.size + others.size || 1)
}

// How often a page says the words, a rare word counting for more.
function often(words, docname) {
  const pages = Object.values(WORD_COUNTS)
  const weights = [...words].map(word => {
    const rarity = Math.log2((1 + pages.length) / (1 + pages.filter(page => word in page).length))
    return rarity * Math.log2(1 + (WORD_COUNTS[docname]?.[word] ?? 0))
  })
  return weights.reduce((sum, weight) => sum + weight, 0) / (words.size || 1)
}

addEventListener('DOMContentLoaded', () => {
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, 'text/html')
    const article = page.querySelector('article.bd-article')
    article.querySelectorAll('script, style, svg, .headerlink, .eqno').forEach(e => e.remove())
    const section = anchor && article.querySelector(anchor)
    return (section || article).textContent.replace(/\\[()]/g, '').replace(/\s+/g, ' ')
  }
})
