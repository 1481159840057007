// A link to an equation, a proposition, a figure, a paper or an exercise shows it where the pointer
// rests.
const SHOWN = 'div.math, figure, div.citation, div.admonition'
const DELAY = 250
const pages = new Map([[location.pathname, document]])
let pending, shown

async function pageOf(path) {
  if (!pages.has(path)) {
    if (location.protocol === 'file:') return null  // where no page may read another
    const html = await (await fetch(path)).text()
    pages.set(path, new DOMParser().parseFromString(html, 'text/html'))
  }
  return pages.get(path)
}

async function copyOf(link) {
  const {pathname, hash} = new URL(link.href)
  const page = hash && await pageOf(pathname)
  const target = page && page.getElementById(decodeURIComponent(hash.slice(1)))
  if (!target?.matches(SHOWN)) return null
  const copy = target.cloneNode(true)
  copy.removeAttribute('id')
  copy.querySelectorAll('.headerlink').forEach(anchor => anchor.remove())
  return copy
}

async function show(link) {
  const copy = await copyOf(link)
  if (!copy || !link.matches(':hover')) return
  hide()
  shown = document.createElement('div')
  shown.className = 'preview'
  shown.ariaHidden = 'true'  // who does not see it follows the link
  shown.append(copy)
  link.closest('.bd-article').append(shown)
  await window.MathJax?.typesetPromise?.([shown])
  await Promise.all([...shown.querySelectorAll('img')].map(image => image.decode()))
  place(shown, link.getClientRects()[0])
}

function place(box, {left, top, bottom}) {
  const isBelow = bottom + box.offsetHeight < innerHeight || top < innerHeight / 2
  box.style.top = `${scrollY + (isBelow ? bottom + 4 : top - box.offsetHeight - 4)}px`
  box.style.left = `${Math.max(8, Math.min(left, innerWidth - box.offsetWidth - 24))}px`
  box.classList.add('placed')
}

function hide() {
  clearTimeout(pending)
  shown?.remove()
}

addEventListener('DOMContentLoaded', () => {
  if (!matchMedia('(hover: hover)').matches) return
  for (const link of document.querySelectorAll('.bd-article a.reference.internal[href*="#"]')) {
    link.addEventListener('pointerenter', () => { pending = setTimeout(show, DELAY, link) })
    link.addEventListener('pointerleave', hide)
  }
  addEventListener('keydown', event => { if (event.key === 'Escape') hide() })
})
