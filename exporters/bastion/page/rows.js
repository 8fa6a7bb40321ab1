// A scrolling list of which only the rows in sight exist: ten thousand cost as much as forty.

const SPARE = 8; // rows beyond what is in sight, either way

export class Rows {
  // `make` returns an empty row, `fill` writes the row of that number into one.
  constructor(scroller, body, height, make, fill) {
    Object.assign(this, { scroller, body, height, make, fill, count: 0, rows: new Map(), spare: [] });
    body.classList.add("virtual");
    scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.soon()).observe(scroller);
  }

  // There are so many rows, and all of them may be others.
  set(count, height = this.height) {
    this.count = count;
    this.height = height;
    this.body.style.height = `${count * height}px`;
    this.draw(true);
  }

  soon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw(false);
    });
  }

  draw(anew) {
    const top = this.scroller.scrollTop - this.body.offsetTop;
    const first = Math.max(0, Math.floor(top / this.height) - SPARE);
    const end = Math.min(this.count, Math.ceil((top + this.scroller.clientHeight) / this.height) + SPARE);
    for (const [number, row] of this.rows) {
      if (number >= first && number < end) continue;
      this.rows.delete(number);
      row.remove();
      this.spare.push(row);
    }
    for (let number = first; number < end; number++) {
      let row = this.rows.get(number);
      if (row && !anew) continue;
      if (!row) {
        row = this.spare.pop() || this.make();
        row.style.transform = `translateY(${number * this.height}px)`;
        row.style.height = `${this.height}px`;
        this.rows.set(number, row);
        this.body.append(row);
      } else if (row.style.height !== `${this.height}px`) {
        row.style.transform = `translateY(${number * this.height}px)`;
        row.style.height = `${this.height}px`;
      }
      this.fill(number, row);
    }
  }

  // The row of that number, scrolled into sight.
  reach(number) {
    const top = this.body.offsetTop + number * this.height, head = this.body.offsetTop;
    if (top - head < this.scroller.scrollTop) this.scroller.scrollTop = top - head;
    const over = top + this.height - this.scroller.scrollTop - this.scroller.clientHeight;
    if (over > 0) this.scroller.scrollTop += over;
    this.draw(false);
    return this.rows.get(number);
  }
}
